"""A small ReLU network that trains in seconds on a CPU."""

import torch
from torch import nn

from robustperf import check
from robustperf.nets.dtype import made_in_float32


@made_in_float32
class SmallCNN(nn.Module):
    """Two 3x3 convolutions and one hidden dense layer, all with ReLU: for demonstrations and tests.

    The convolutions have `width` and `2 * width` channels and keep the size; each is followed by 2x2 max-pooling while
    a side has two pixels or more (8 -> 4 -> 2, 28 -> 14 -> 7). The hidden layer has `4 * width` units.

    Args:
        in_channels: channels of the image.
        size: height and width of the image in pixels (8 for scikit-learn's digits, 28 for MNIST).
        classes: number of labels.
        width: channels of the first convolution.

    Forward: images [B, in_channels, size, size] -> logits [B, classes], of the parameters' dtype.

    Raises ValueError for an argument that is not a positive integer, or images of another shape.

    >>> SmallCNN(size=8)(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(self, in_channels: int = 1, size: int = 28, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "size": size, "classes": classes, "width": width}
        for name, value in sizes.items():
            check.integer(name, value, 1)
        self.shape = (in_channels, size, size)

        blocks = []
        for channels, out in ((in_channels, width), (width, 2 * width)):
            blocks += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
            if size >= 2:
                blocks.append(nn.MaxPool2d(2))
                size //= 2
        self.features = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(2 * width * size * size, 4 * width),
            nn.ReLU(),
            nn.Linear(4 * width, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1:] != self.shape:
            raise ValueError(f"x: expected images [B, {', '.join(map(str, self.shape))}], got {list(x.shape)}")
        return self.head(self.features(x))
