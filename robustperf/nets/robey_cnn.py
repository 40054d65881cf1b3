"""The convolutional classifier of Robey, Hassani and Pappas (2020), appendix A.2."""

import torch
from torch import nn

from robustperf import check
from robustperf.nets.dropout import Dropout
from robustperf.nets.dtype import made_in_float32


@made_in_float32
class RobeyCNN(nn.Module):
    """The classifier for all but ImageNet (Robey et al. 2020, appendix A.2): c32-3, c64-3, p2, c128-3, p2, d0.25, flat,
    fc128, d0.5, fc10, with ReLU after each convolution and the hidden dense layer.

    The paper gives no padding; here there is none, as in the classic MNIST example with these layers, and each pooling
    has an even input size at the paper's 32x32 (30, 28, 14, 12, 6) and 64x64 pixels. The initial weights are those of
    torch's layers.

    Args:
        in_channels: channels of the image.
        size: height and width of the image in pixels, at least 12.
        classes: number of labels.
        batch_norm: batch normalisation after each convolution, before its ReLU; the paper has none.
        width: channels of the first convolution, 32 in the paper; the others and the hidden dense layer grow with it.

    Forward: images [B, in_channels, size, size] -> logits [B, classes], of the parameters' dtype. In train mode
    within `nets.drawing`, its dropout depends on the samples only.

    Raises ValueError for an argument that is not a positive integer, a size that is too small, or images of another
    shape.

    >>> RobeyCNN(width=4)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self, in_channels: int = 3, size: int = 32, classes: int = 10, batch_norm: bool = False, width: int = 32
    ) -> None:
        super().__init__()
        for name, value in {"in_channels": in_channels, "size": size, "classes": classes, "width": width}.items():
            check.integer(name, value, 1)
        if size < 12:
            raise ValueError(f"size: expected at least 12 pixels, got {size}")
        self.shape = (in_channels, size, size)

        self.features = nn.Sequential(
            *_convolution(in_channels, width, batch_norm),
            nn.ReLU(),
            # pooling before ReLU: the same values for a quarter of the work
            *_convolution(width, 2 * width, batch_norm),
            nn.MaxPool2d(2),
            nn.ReLU(),
            *_convolution(2 * width, 4 * width, batch_norm),
            nn.MaxPool2d(2),
            nn.ReLU(),
            Dropout(0.25),
        )
        side = ((size - 4) // 2 - 2) // 2
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(4 * width * side * side, 4 * width),
            nn.ReLU(),
            Dropout(0.5),
            nn.Linear(4 * width, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1:] != self.shape:
            raise ValueError(f"x: expected images [B, {', '.join(map(str, self.shape))}], got {list(x.shape)}")
        return self.head(self.features(x))


def _convolution(channels: int, out: int, batch_norm: bool) -> list[nn.Module]:
    if not batch_norm:
        return [nn.Conv2d(channels, out, 3)]
    # no bias: the batch normalisation that follows has one
    return [nn.Conv2d(channels, out, 3, bias=False), nn.BatchNorm2d(out)]
