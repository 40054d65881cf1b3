"""The residual network for ImageNet of He, Zhang, Ren and Sun (2016), Table 1, with 50 layers."""

import torch
from torch import nn
from torch.nn import functional as F

from robustperf import check
from robustperf.nets.dtype import made_in_float32


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1 with batch normalisation (He et al. 2016, Figure 5), and a shortcut that is
    projected where the shape changes (option B).

    The stride is in the 3x3 convolution, torchvision's v1.5; the paper has it in the first 1x1.

    Forward: [B, channels, H, W] -> [B, 4 width, ceil(H / stride), ceil(W / stride)].
    """

    conv1: nn.Conv2d
    bn1: nn.BatchNorm2d
    conv2: nn.Conv2d
    bn2: nn.BatchNorm2d
    conv3: nn.Conv2d
    bn3: nn.BatchNorm2d
    downsample: nn.Sequential | None

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride > 1 or channels != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride=stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = F.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return F.relu(residual + (x if self.downsample is None else self.downsample(x)))


@made_in_float32
class ResNet50(nn.Module):
    """The classifier for ImageNet (Robey et al. 2020, appendix A.2; He et al. 2016, Table 1): 25,557,032 parameters.

    Parameters have torchvision's names, so that its state dicts load, and the same initial distribution: convolutions
    normal with variance 2 / fan-out, the dense layer as in torch.

    Args:
        in_channels: channels of the image.
        classes: number of labels.

    Forward: images [B, in_channels, H, W] of any size (the paper's is 224x224) -> logits [B, classes], of the
    parameters' dtype.

    Raises ValueError for an argument that is not a positive integer.

    >>> ResNet50(classes=10).eval()(torch.rand(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """

    def __init__(self, in_channels: int = 3, classes: int = 1000) -> None:
        super().__init__()
        for name, value in {"in_channels": in_channels, "classes": classes}.items():
            check.integer(name, value, 1)
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, blocks=3, stride=1)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.layer3 = _stage(512, 256, blocks=6, stride=2)
        self.layer4 = _stage(1024, 512, blocks=3, stride=2)
        self.fc = nn.Linear(2048, classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean(dim=(2, 3)))


def _stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    others = [Bottleneck(4 * width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(channels, width, stride), *others)
