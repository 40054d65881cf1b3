"""The papers' networks, one file for each family. Classifiers map images [B, C, H, W] to logits [B, classes];
`TiboGenerator` maps images to images."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from robustperf.lazy import lazily
from robustperf.names import check_name

if TYPE_CHECKING:
    from torch import nn

    from robustperf.nets import weights_file
    from robustperf.nets.dropout import Dropout, drawing
    from robustperf.nets.lenet import LeNet
    from robustperf.nets.resnet import ResNet20
    from robustperf.nets.resnet50 import ResNet50
    from robustperf.nets.robey_cnn import RobeyCNN
    from robustperf.nets.small_cnn import SmallCNN
    from robustperf.nets.tibo_cnn import TiboCNN
    from robustperf.nets.tibo_generator import TiboGenerator
    from robustperf.nets.tibo_transfer_cnn import TiboTransferCNN

__all__ = [
    "NAMES",
    "Dropout",
    "LeNet",
    "ResNet20",
    "ResNet50",
    "RobeyCNN",
    "SmallCNN",
    "TiboCNN",
    "TiboGenerator",
    "TiboTransferCNN",
    "build",
    "drawing",
    "weights_file",
]

_FAMILIES = {
    "tibo-cnn": "TiboCNN",
    "tibo-transfer-cnn": "TiboTransferCNN",
    "robey-cnn": "RobeyCNN",
    "lenet": "LeNet",
    "resnet20": "ResNet20",
    "resnet50": "ResNet50",
    "small-cnn": "SmallCNN",
}

NAMES = tuple(_FAMILIES)
"""The names that `build` takes."""

__getattr__, __dir__ = lazily(__name__, __all__, {
    "Dropout": "dropout",
    "LeNet": "lenet",
    "ResNet20": "resnet",
    "ResNet50": "resnet50",
    "RobeyCNN": "robey_cnn",
    "SmallCNN": "small_cnn",
    "TiboCNN": "tibo_cnn",
    "TiboGenerator": "tibo_generator",
    "TiboTransferCNN": "tibo_transfer_cnn",
    "drawing": "dropout",
})  # fmt: skip


def build(name: str, **kwargs: Any) -> nn.Module:
    """A new network.

    Args:
        name: one of `NAMES`.
        kwargs: the arguments of its constructor.

    Returns the network with the attribute `architecture`, (name, kwargs), which `weights_file.save` records.

    Raises ValueError for an unknown name, TypeError for an argument that this network does not take.

    >>> build("small-cnn", size=8, classes=10)(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    from robustperf import check

    check_name("name", name, NAMES)
    kwargs = check.plain(kwargs)  # files record them as JSON
    model = getattr(sys.modules[__name__], _FAMILIES[name])(**kwargs)
    model.architecture = (name, kwargs)
    return model
