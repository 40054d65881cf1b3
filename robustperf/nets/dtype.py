"""The dtype that networks begin with: float32, as images have it, whatever torch's default is."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def default_float32() -> Iterator[None]:
    """Inside, float32 is torch's default dtype; afterwards it is as before."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def made_in_float32(network: type[nn.Module]) -> type[nn.Module]:
    """A decorator: the constructor makes float32 parameters also under `torch.set_default_dtype(torch.float64)`."""
    make = network.__init__

    @functools.wraps(make)
    def __init__(self, *args, **kwargs):
        with default_float32():
            make(self, *args, **kwargs)

    network.__init__ = __init__
    return network
