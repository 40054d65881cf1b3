"""Equality by value for objects that hold tensors: a copy, or an object pickled and loaded, equals the original."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch


def same(one: Any, other: Any) -> bool:
    """Whether two values have the same type and are equal.

    Tensors and arrays are compared by dtype, shape and values (NaN equals NaN), modules by type and weights, containers
    by their contents, everything else by `==`.
    """
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.device == other.device
            and bool(((one == other) | ((one != one) & (other != other))).all())
        )
    if isinstance(one, np.ndarray):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and bool(np.all((one == other) | ((one != one) & (other != other))))
        )
    if isinstance(one, torch.nn.Module):
        return same(dict(one.state_dict()), dict(other.state_dict()))
    if isinstance(one, partial):
        return same((one.func, one.args, one.keywords), (other.func, other.args, other.keywords))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (isinstance(one, float) and one != one and other != other)
