"""A LeNet: the encoder of ADDA in Robey, Hassani and Pappas (2020), appendix A.1."""

import torch
from torch import nn

from robustperf import check
from robustperf.nets.dtype import made_in_float32


@made_in_float32
class LeNet(nn.Module):
    """Two convolutions and two dense layers after LeCun et al. (1998), for Robey et al. (2020), appendix A.1: c20-5,
    p2, c50-5, p2, flat, fc500, fc10 in the notation of A.2, with ReLU after each convolution and the hidden dense
    layer.

    The paper gives no sizes; these are the common ones, without padding (431,080 parameters for 28x28 grey images).
    `encoder` returns the 500 features and `classifier` is the last layer: ADDA trains them separately. The initial
    weights are those of torch's layers.

    Args:
        in_channels: channels of the image.
        size: height and width of the image in pixels, at least 16.
        classes: number of labels.

    Forward: images [B, in_channels, size, size] -> logits [B, classes], of the parameters' dtype.

    Raises ValueError for an argument that is not a positive integer, a size that is too small, or images of another
    shape.

    >>> LeNet(in_channels=1, size=28)(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self, in_channels: int = 3, size: int = 32, classes: int = 10) -> None:
        super().__init__()
        for name, value in {"in_channels": in_channels, "size": size, "classes": classes}.items():
            check.integer(name, value, 1)
        if size < 16:
            raise ValueError(f"size: expected at least 16 pixels, got {size}")
        self.shape = (in_channels, size, size)
        side = ((size - 4) // 2 - 4) // 2
        self.encoder = nn.Sequential(
            nn.Conv2d(in_channels, 20, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(50 * side * side, 500),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(500, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1:] != self.shape:
            raise ValueError(f"x: expected images [B, {', '.join(map(str, self.shape))}], got {list(x.shape)}")
        return self.classifier(self.encoder(x))
