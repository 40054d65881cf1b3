"""The convolutional classifier of Tibo, Jaeger and Larsen (2021), Figure 5."""

import torch
from torch import nn

from robustperf import check
from robustperf.nets.dtype import made_in_float32


@made_in_float32
class TiboCNN(nn.Module):
    """The classifier f for MNIST, Fashion-MNIST and SVHN (Tibo et al. 2021, appendix A.1 and Figure 5).

    `layers` convolutions (5x5, stride 1, `width` channels), each followed by batch normalisation and LeakyReLU(0.1); a
    dense layer of `hidden` units with the same two; a dense layer of `classes` units. The paper's softmax is part of
    the loss. The paper's values are `width=128`, `hidden=1024`, with `in_channels=1, size=28` for MNIST and
    Fashion-MNIST and `in_channels=3, size=32` for SVHN; a smaller `width` makes a small version for demonstrations.

    The paper's text gives neither the number of convolutions nor how the image shrinks between them. Here there are
    three by default, zero-padded to keep the size, with 2x2 max-pooling between two of them (28 -> 14 -> 7), so that
    the dense layer stays trainable. The number of weights may differ from the paper's.

    Args:
        in_channels: channels of the image.
        size: height and width of the image in pixels, at least 2**(layers - 1).
        classes: number of labels.
        width: channels of every convolution.
        layers: number of convolutions.
        hidden: units of the first dense layer.

    Forward: images [B, in_channels, size, size] -> logits [B, classes], of the parameters' dtype.

    Raises ValueError for an argument that is not a positive integer, a size too small for `layers`, or images of
    another shape.

    >>> TiboCNN(width=4, hidden=16)(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 1,
        size: int = 28,
        classes: int = 10,
        width: int = 128,
        layers: int = 3,
        hidden: int = 1024,
    ) -> None:
        super().__init__()
        sizes = {
            "in_channels": in_channels,
            "size": size,
            "classes": classes,
            "width": width,
            "layers": layers,
            "hidden": hidden,
        }
        for name, value in sizes.items():
            check.integer(name, value, 1)
        if int(size).bit_length() < layers:  # size < 2**(layers - 1), which a file could make huge
            raise ValueError(
                f"size: expected at least 2**{layers - 1} pixels for the pooling between layers={layers} "
                f"convolutions, got {size}"
            )
        self.shape = (in_channels, size, size)

        blocks = []
        for layer in range(layers):
            if layer > 0:
                blocks.append(nn.MaxPool2d(2))
                size //= 2
            channels = in_channels if layer == 0 else width
            # no bias: the batch normalisation that follows has one
            blocks += [nn.Conv2d(channels, width, 5, padding=2, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.1)]
        self.features = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(width * size * size, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1:] != self.shape:
            raise ValueError(f"x: expected images [B, {', '.join(map(str, self.shape))}], got {list(x.shape)}")
        return self.head(self.features(x))
