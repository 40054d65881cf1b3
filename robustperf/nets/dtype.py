"""Networks are created in float32, the dtype of images, whatever torch's default dtype is."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def default_float32() -> Iterator[None]:
    """A context in which float32 is torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def made_in_float32(network: type[nn.Module]) -> type[nn.Module]:
    """A class decorator: the constructor creates float32 parameters under any `torch.set_default_dtype`."""
    make = network.__init__

    @functools.wraps(make)
    def __init__(self, *args, **kwargs):
        with default_float32():
            make(self, *args, **kwargs)

    network.__init__ = __init__
    return network
