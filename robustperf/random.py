"""Keys and counter-based draws: the same bits for a sample whatever the batch, the process or the device.

A key is 64 bits; `fold_in` derives one for each step, kernel, attack, …; `uniform` and `normal` draw under it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import overload

import torch

from robustperf import check, ops
from robustperf.ops.draws import Key
from robustperf.ops.philox import MASK, philox


class Salt(IntEnum):
    """What `fold_in` takes for a key of its own use. The values never change: they are part of every result. Steps,
    epochs and kernels take their own small numbers, which must differ from these."""

    DROPOUT = 0x64726F70  # dropout masks; kernels draw under the key itself
    GENERATOR = 0x67656E  # co-training: the generator's order and draws
    HELD_OUT = 0x68656C64  # which samples validation holds out; epochs take 0, 1, ...
    SAMPLES = 0x73616D70  # the random transforms of a torch data set, under a step's key
    POINTS = 0x706F696E  # the points of a score
    TARGET = 0x74617267  # the target images of domain adaptation, under a step's key
    FAMILY = 0x6C616D62  # the parameters lambda of a family; kernels draw under the indices of the nodes


def key(seed: int) -> int:
    """The key of `seed`, 0 <= seed < 2^64 (the number itself; ValueError outside that range).

    >>> rp.random.key(7)
    7
    """
    return _bits64("seed", seed)


@overload
def fold_in(key: int, number: int) -> int: ...
@overload
def fold_in(key: Key, number: Key) -> Key: ...
def fold_in(key: Key, number: int | torch.Tensor) -> Key:
    """A key derived from `key` and 0 <= number < 2^64: the first two output words of Philox4x32-10 under `key` at the
    counter (number lo, number hi, 0, 1).

    Returns an integer, or, without host-device synchronisation, an int64 tensor [] if one of the two is such a tensor.

    Raises TypeError for a tensor of a wrong dtype, ValueError for a number out of range.

    >>> step_key = fold_in(key(0), 3)
    >>> step_key == fold_in(key(0), 3), step_key == fold_in(key(0), 4)
    (True, False)
    """
    key, number = _bits64("key", key), _bits64("number", number)
    lo, hi, _, _ = philox([number & MASK, number >> 32 & MASK, 0, 1], (key & MASK, key >> 32 & MASK))
    return lo | hi << 32


def uniform(
    key: Key, index: torch.Tensor, draws: int | torch.Tensor, dim: int, *, backend: str | None = None
) -> torch.Tensor:
    """Uniforms in [0, 1), multiples of 2^-24.

    Args:
        key: 64 bits, an integer or an int64 tensor [] that holds them (`ops.draws.Key`).
        index: [B] int64 >= 0, the samples' ids in their data set.
        draws: K for the draws 0..K-1, or draw indices, [K] int64.
        dim: components of a draw.

    Returns [K, B, dim] float32 on index's device.

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, device, range or backend.

    >>> whole = uniform(key(0), torch.arange(8), draws=3, dim=5)
    >>> whole.shape, torch.equal(whole[:, 4:6], uniform(key(0), torch.tensor([4, 5]), 3, 5))
    (torch.Size([3, 8, 5]), True)
    """
    return ops.draws(key, index, draw_indices(draws, index), dim, backend=backend)


def normal(
    key: Key, index: torch.Tensor, draws: int | torch.Tensor, dim: int, *, backend: str | None = None
) -> torch.Tensor:
    """Standard normals from the same words as `uniform`, one word a normal (the quantile function, |z| < 5.5).

    Args:
        key: 64 bits, an integer or an int64 tensor [] that holds them (`ops.draws.Key`).
        index: [B] int64 >= 0, the samples' ids in their data set.
        draws: K for the draws 0..K-1, or draw indices, [K] int64.
        dim: components of a draw.

    Returns [K, B, dim] float32 on index's device.

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, device, range or backend.

    >>> normal(key(0), torch.arange(8), draws=3, dim=5).shape
    torch.Size([3, 8, 5])
    """
    return ops.draws(key, index, draw_indices(draws, index), dim, normal=True, backend=backend)


def _bits64(name, value):
    if isinstance(value, torch.Tensor):
        return check.tensor(name, value, (), dtypes=(torch.int64,))
    return check.integer(name, value, 0, 2**64 - 1)


def draw_indices(draws: int | torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """[K]: 0..K-1 on index's device for K draws, or the given indices; ValueError for an invalid number of draws."""
    if isinstance(draws, torch.Tensor):
        return draws
    return torch.arange(
        check.integer("draws", draws, 0, 2**32), device=index.device if isinstance(index, torch.Tensor) else None
    )
