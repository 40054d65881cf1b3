"""The papers' classifiers, one file a family; each maps images [B, C, H, W] to logits [B, classes]."""

from torch import nn

from robustperf.nets.resnet import ResNet20
from robustperf.nets.small_cnn import SmallCNN
from robustperf.nets.tibo_cnn import TiboCNN

__all__ = ["NAMES", "ResNet20", "SmallCNN", "TiboCNN", "build"]

_FAMILIES = {"tibo-cnn": TiboCNN, "resnet20": ResNet20, "small-cnn": SmallCNN}

NAMES = tuple(_FAMILIES)
"""The names that `build` knows."""


def build(name: str, **kwargs) -> nn.Module:
    """The network called `name`, one of `NAMES`; `kwargs` go to its constructor.

    >>> build("small-cnn", size=8, classes=10)

    Raises ValueError for an unknown name, TypeError for an argument that this network does not take.
    """
    if name not in NAMES:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    return _FAMILIES[name](**kwargs)
