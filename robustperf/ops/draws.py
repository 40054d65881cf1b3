"""Counter-based draws: uniforms and normals that depend on nothing but their coordinates."""

from __future__ import annotations

from collections.abc import Callable

import torch

from robustperf import check
from robustperf.ops import registry

Key = int | torch.Tensor
"""64 bits: an integer in 0..2^64-1, or an int64 tensor [] that holds them, on the device of what is drawn. A CUDA graph
reads a tensor anew at each replay, where it keeps an integer for good."""


def draws(
    key: Key, index: torch.Tensor, draw: torch.Tensor, dim: int, *, normal: bool = False, backend: str | None = None
) -> torch.Tensor:
    """Component j of draw d for sample index i, from lane j % 4 of Philox4x32-10 under `key` at the counter
    (j // 4, d, i mod 2^32, i // 2^32): the same bits on every backend, whatever the batch, the chunk or the order.

    A word u becomes (u >> 8) 2^-24, or the standard normal quantile of (2 (u >> 8) + 1) 2^-25 (accurate to 2e-6).
    `robustperf.random` is the interface for users.

    Args:
        key: 64 bits, an integer or an int64 tensor [] that holds them.
        index: [B] int64 >= 0, the samples' ids.
        draw: [K] int64 in 0..2^32-1, the draws' indices.
        dim: components of a draw, up to 2^34.
        normal: standard normals instead of uniforms.

    Returns [K, B, dim] float32 on index's device.

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, device, range or backend.

    >>> rp.ops.draws(0, torch.arange(8), torch.arange(3), 5).shape
    torch.Size([3, 8, 5])
    """
    key, dim = check.plain(key), check.plain(dim)
    check_draws(key, index, draw)
    check.integer("dim", dim, 0, 2**34)
    return draws_unchecked(key, index, draw, dim, normal=normal, backend=backend)


def draws_unchecked(
    key: Key, index: torch.Tensor, draw: torch.Tensor, dim: int, *, normal: bool = False, backend: str | None = None
) -> torch.Tensor:
    """`draws` of arguments that passed `check_draws`."""
    return _draws(registry.choose("draws", backend, index.device), *key_arguments(key), index, draw, dim, normal)


def check_draws(
    key: Key,
    index: torch.Tensor,
    draw: torch.Tensor,
    *,
    batch: int | str = "B",
    device: torch.device | None = None,
) -> None:
    """TypeError or ValueError unless key, index [batch] and draw [K] are valid, on one device. Values on a GPU are not
    read, which would synchronise host and device."""
    check.tensor("index", index, (batch,), dtypes=(torch.int64,), device=device)
    check_key(key, index.device)
    check.tensor("draw", draw, ("K",), dtypes=(torch.int64,), device=index.device)
    if index.device.type == "cpu" and not torch.compiler.is_compiling():
        for name, values, largest in (("index", index, 2**63 - 1), ("draw", draw, 2**32 - 1)):
            if values.numel():
                low, high = (value.item() for value in values.aminmax())
                if low < 0 or high > largest:
                    raise ValueError(f"{name}: expected numbers in 0..{largest}, got {low} to {high}")


def check_key(key: Key, device: torch.device | None = None) -> None:
    """TypeError or ValueError unless `key` is one, on `device` if it is a tensor."""
    if isinstance(key, torch.Tensor):
        check.tensor("key", key, (), dtypes=(torch.int64,), device=device)
    else:
        check.integer("key", key, 0, 2**64 - 1)


def key_arguments(key: Key) -> tuple[int, torch.Tensor | None]:
    """A key as the schemas have it, `int key, Tensor? device_key`: torch's integers are signed."""
    return (0, key) if isinstance(key, torch.Tensor) else (key - 2**64 if key >= 2**63 else key, None)


def key_at(place: int) -> Callable[[tuple], tuple]:
    """Makes one argument of those two, which stand at `place`: what implementations take."""

    def joined(args):
        key, device_key = args[place : place + 2]
        return (*args[:place], key if device_key is None else device_key, *args[place + 2 :])

    return joined


def _fake(key, device_key, index, draw, dim, normal, backend):
    return index.new_empty((draw.shape[0], index.shape[0], dim), dtype=torch.float32)


_draws = registry.register(
    "draws",
    "(int key, Tensor? device_key, Tensor index, Tensor draw, int dim, bool normal, str backend) -> Tensor",
    _fake,
    arguments=key_at(0),
)
