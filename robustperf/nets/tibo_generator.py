"""The generator of adversarial examples of Tibo, Jaeger and Larsen (2021), Figure 6."""

import torch
from torch import nn

from robustperf import check
from robustperf.nets.dtype import made_in_float32


@made_in_float32
class TiboGenerator(nn.Module):
    """The generator g of co-training (Tibo et al. 2021, section 3.1, appendix A.1 and Figure 6).

    `layers` convolutions (5x5, stride 1, `width` channels), each followed by batch normalisation and LeakyReLU(0.1),
    and one to the image's channels, followed by a sigmoid. Only `in_channels` differs between MNIST, Fashion-MNIST,
    SVHN and CIFAR-10. The paper's width is 128. Its text does not give the number of convolutions; here three
    precede the last by default, zero-padded to keep the size.

    Args:
        in_channels: channels of the image.
        width: channels of every intermediate convolution.
        layers: number of intermediate convolutions.

    Forward: images [B, in_channels, H, W] -> images of the same shape in (0, 1), of the parameters' dtype.

    Raises ValueError for an argument that is not a positive integer, or images of another shape.

    >>> TiboGenerator(width=4)(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(self, in_channels: int = 1, width: int = 128, layers: int = 3) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("width", width), ("layers", layers)):
            check.integer(name, value, 1)
        self.channels = in_channels
        blocks = []
        for layer in range(layers):
            channels = in_channels if layer == 0 else width
            # no bias: the batch normalisation that follows has one
            blocks += [nn.Conv2d(channels, width, 5, padding=2, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.1)]
        self.layers = nn.Sequential(*blocks, nn.Conv2d(width, in_channels, 5, padding=2), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f"x: expected images [B, {self.channels}, H, W], got {list(x.shape)}")
        return self.layers(x)
