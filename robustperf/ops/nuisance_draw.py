"""A nuisance program that draws its delta."""

from __future__ import annotations

import torch

from robustperf import check
from robustperf.ops import registry
from robustperf.ops.draws import Key, check_draws, key_arguments, key_at
from robustperf.ops.nuisance import check_range, layout_of
from robustperf.ops.program import Program, channels_out


def nuisance_draw(
    x: torch.Tensor,
    key: Key,
    index: torch.Tensor,
    draw: torch.Tensor,
    program: Program,
    *,
    out: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """`nuisance(x, nuisance_sample(key, index, draw, ...))` in one pass, bit for bit. All draws of a sample are
    computed while it is in the cache, and delta is never stored.

    Args:
        x: [B, C, H, W] float32 or float64 in [0, 1]; checked on the CPU only, for on a GPU the check would synchronise.
        key: 64 bits, an integer or an int64 tensor [] that holds them.
        index: [B] int64 >= 0, the samples' ids in their data set.
        draw: [K] int64 in 0..2^32-1, the draws' indices.
        program: the steps, such as `rp.nuisance.Hue(0.1).program`.
        out: [K, B, C', H, W] of x's dtype, contiguous, not overlapping x, to write into: in a loop it saves
            allocations.

    Returns [K, B, C', H, W] of x's dtype, `out` if given. No gradient: where one is wanted, draw delta with
    `nuisance_sample`.

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, device, pixel, range or backend.

    >>> program, x = rp.nuisance.Hue(0.1).program, torch.rand(2, 3, 8, 8)
    >>> rp.ops.nuisance_draw(x, rp.random.key(0), torch.arange(2), torch.arange(10), program).shape
    torch.Size([10, 2, 3, 8, 8])
    """
    check.tensor("x", x, ("B", "C", "H", "W"))
    check_draws(key, index, draw, batch=x.shape[0], device=x.device)
    return nuisance_draw_unchecked(x, key, index, draw, program, out=out, backend=backend)


def nuisance_draw_unchecked(
    x: torch.Tensor,
    key: Key,
    index: torch.Tensor,
    draw: torch.Tensor,
    program: Program,
    *,
    out: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """`nuisance_draw` of x, a tensor [B, C, H, W], and coordinates that passed `check_draws`. The shapes that the
    program takes, `out` and the pixels are still checked, the pixels by the backend in its pass over them."""
    layout = layout_of(x, program)
    backend = registry.choose("nuisance_draw", backend, x.device)
    x = check_range(x, backend)
    shape = (draw.shape[0], x.shape[0], channels_out(layout.codes, x.shape[1]), *x.shape[2:])
    if out is None:
        out = x.new_empty(shape)
    elif not check.tensor("out", out, shape, dtypes=(x.dtype,), device=x.device).is_contiguous():
        raise ValueError("out: expected a contiguous tensor, got one with strides " + str(out.stride()))
    elif out.requires_grad:
        raise ValueError("out: expected a tensor that requires no gradient, got one that does")
    _nuisance_draw(backend, out, x, index, draw, layout.codes, layout.parameters, *key_arguments(key))
    return out


def _fake(out, x, index, draw, codes, parameters, key, device_key, backend):
    return None


_nuisance_draw = registry.register(
    "nuisance_draw",
    "(Tensor(a!) out, Tensor x, Tensor index, Tensor draw, int[] codes, float[] parameters, int key, "
    "Tensor? device_key, str backend) -> ()",
    _fake,
    arguments=key_at(6),
)
