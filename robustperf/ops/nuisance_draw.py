"""A nuisance program with delta drawn on the way."""

from __future__ import annotations

import torch

from robustperf import check
from robustperf.ops import registry
from robustperf.ops.draws import check_draws, signed
from robustperf.ops.nuisance import check_images, check_range
from robustperf.ops.program import Program, channels_out


def nuisance_draw(x: torch.Tensor, key: int, index: torch.Tensor, draw: torch.Tensor, program: Program, *,
                  backend: str | None = None) -> torch.Tensor:
    """`nuisance(x, nuisance_sample(key, index, draw, ...))` in one pass, bit for bit; all draws of a sample are made
    while it is in the cache, and delta is never written out.

    Args:
        x: [B, C, H, W] as in `nuisance`.
        key, draw: as in `draws`.
        index: [B] int64 >= 0, the samples' indices in their data set.

    Returns [K, B, C', H, W] of x's dtype. No gradient: draw delta with `nuisance_sample` where one is wanted.

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, device, pixel, range or backend.
    """
    layout = check_images(x, program)
    check.tensor("index", index, (x.shape[0],), dtypes=(torch.int64,), device=x.device)
    check_draws(key, index, draw)
    backend = registry.choose("nuisance_draw", backend, x.device)
    check_range(x, backend)
    return _nuisance_draw(x, index, draw, layout.codes, layout.numbers, signed(key), backend)


def _fake(x, index, draw, codes, numbers, key, backend):
    return x.new_empty((draw.shape[0], x.shape[0], channels_out(codes, x.shape[1]), *x.shape[2:]))


_nuisance_draw = registry.register(
    "nuisance_draw",
    "(Tensor x, Tensor index, Tensor draw, int[] codes, float[] numbers, int key, str backend) -> Tensor",
    _fake,
)
