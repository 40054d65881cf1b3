"""The convolutional classifier of Tibo, Jaeger and Larsen (2021), appendix B."""

import torch
from torch import nn

from robustperf import check
from robustperf.nets.dropout import Dropout
from robustperf.nets.dtype import made_in_float32


@made_in_float32
class TiboTransferCNN(nn.Module):
    """The classifier f of the experiments on MNIST-C (Tibo et al. 2021, section 4 and appendix B), which they take from
    Mu and Gilmer (2019).

    3x3 convolutions without padding to `width` and 2 `width` channels, both with ReLU; 2x2 max-pooling; dropout of
    0.25; a dense layer of `hidden` units with ReLU; dropout of 0.5; a dense layer of `classes` units. The paper's
    softmax is part of the loss. The paper's values are the defaults; it trains with Adam at 1e-3, in batches of 32, for
    50 epochs, and keeps the best epoch on a held-out tenth.

    Args:
        in_channels: channels of the image.
        size: height and width of the image in pixels, at least 6.
        classes: number of labels.
        width: channels of the first convolution.
        hidden: units of the first dense layer.

    Forward: images [B, in_channels, size, size] -> logits [B, classes], of the parameters' dtype.

    Raises ValueError for an argument that is not a positive integer, a size below 6, or images of another shape.

    >>> TiboTransferCNN()(torch.rand(2, 1, 28, 28)).shape  # trained by fit for 50 epochs of Adam, batches of 32
    torch.Size([2, 10])
    """

    def __init__(
        self, in_channels: int = 1, size: int = 28, classes: int = 10, width: int = 32, hidden: int = 128
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "size": size, "classes": classes, "width": width, "hidden": hidden}
        for name, value in sizes.items():
            check.integer(name, value, 1)
        if size < 6:
            raise ValueError(f"size: expected at least 6 pixels for two convolutions and the pooling, got {size}")
        self.shape = (in_channels, size, size)
        pooled = (size - 4) // 2
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 3),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            Dropout(0.25),
            nn.Flatten(),
            nn.Linear(2 * width * pooled * pooled, hidden),
            nn.ReLU(),
            Dropout(0.5),
            nn.Linear(hidden, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1:] != self.shape:
            raise ValueError(f"x: expected images [B, {', '.join(map(str, self.shape))}], got {list(x.shape)}")
        return self.layers(x)
