"""The residual network for CIFAR-10 of He, Zhang, Ren and Sun (2016), section 4.2."""

import torch
from torch import nn
from torch.nn import functional as F

from robustperf import check
from robustperf.nets.dtype import made_in_float32


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, and the shortcut of option A (He et al. 2016, section 3.3).

    Where the block halves the image, its shortcut takes every second pixel and pads the new channels with zeros: it
    has no parameters.

    Forward: [B, channels, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)].
    """

    extra: int
    conv1: nn.Conv2d
    norm1: nn.BatchNorm2d
    conv2: nn.Conv2d
    norm2: nn.BatchNorm2d

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra = out - channels
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))
        return F.relu(residual + shortcut)


@made_in_float32
class ResNet20(nn.Module):
    """The classifier f for CIFAR-10 (Tibo et al. 2021, appendix A.1; He et al. 2016, section 4.2 with n = 3).

    A 3x3 convolution, three stages of three basic blocks with `width`, `2 * width` and `4 * width` channels (the second
    and third stage start by halving the image), global average pooling and one dense layer. Shortcuts are option A, so
    that the default has 269,722 parameters (0.27 million in the paper); projections (option B) would make it 272,474.
    The initial weights are those of He et al. 2015: normal with variance 2 / fan-in, biases zero.

    Args:
        in_channels: channels of the image.
        classes: number of labels.
        width: channels of the first stage, 16 in the paper.

    Forward: images [B, in_channels, H, W] of any size (the paper's is 32x32) -> logits [B, classes], of the
    parameters' dtype.

    Raises ValueError for an argument that is not a positive integer.

    >>> ResNet20(width=4)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, in_channels: int = 3, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        for name, value in {"in_channels": in_channels, "classes": classes, "width": width}.items():
            check.integer(name, value, 1)
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks, channels = [], width
        for stage in range(3):
            for block in range(3):
                out = width * 2**stage
                blocks.append(BasicBlock(channels, out, stride=2 if stage > 0 and block == 0 else 1))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Linear(channels, classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(self.dense.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(F.relu(self.norm(self.conv(x))))
        return self.dense(x.mean(dim=(2, 3)))
