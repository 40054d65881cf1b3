"""Draws of a nuisance program's delta."""

from __future__ import annotations

import torch

from robustperf import check
from robustperf.ops import registry
from robustperf.ops.draws import Key, check_draws, key_arguments, key_at
from robustperf.ops.program import Program, delta_dim


def nuisance_sample(
    key: Key,
    index: torch.Tensor,
    draw: torch.Tensor,
    program: Program,
    shape: tuple[int, int, int] | None = None,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """delta ~ P(Delta) of R section 4: what `nuisance_draw` takes, for each draw of each sample.

    The words are those of `draws`, in the order that `program.steps_of` gives.

    Args:
        key: 64 bits, an integer or an int64 tensor [] that holds them.
        index: [B] int64 >= 0, the samples' ids in their data set.
        draw: [K] int64 in 0..2^32-1, the draws' indices.
        program: the steps, such as `rp.nuisance.Hue(0.1).program`.
        shape: [C, H, W] of the images; None where the program has no component for each of their values.

    Returns [K, B, q] float32 on index's device, q = `program.layout(shape).dim`.

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, device, range or backend, and for images that a
    step cannot take.

    >>> program = rp.nuisance.Affine().program
    >>> rp.ops.nuisance_sample(rp.random.key(0), torch.arange(8), torch.arange(3), program).shape
    torch.Size([3, 8, 6])
    """
    check_draws(key, index, draw)
    shape = None if shape is None else check.image_shape("shape", shape)
    return nuisance_sample_unchecked(key, index, draw, program, shape, backend=backend)


def nuisance_sample_unchecked(
    key: Key,
    index: torch.Tensor,
    draw: torch.Tensor,
    program: Program,
    shape: tuple[int, int, int] | None = None,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """`nuisance_sample` of arguments that passed `check_draws` and `check.image_shape`."""
    layout = program.layout(shape)
    backend = registry.choose("nuisance_sample", backend, index.device)
    return _nuisance_sample(backend, index, draw, layout.codes, layout.parameters, *key_arguments(key))


def _fake(index, draw, codes, parameters, key, device_key, backend):
    return index.new_empty((draw.shape[0], index.shape[0], delta_dim(codes)), dtype=torch.float32)


_nuisance_sample = registry.register(
    "nuisance_sample",
    "(Tensor index, Tensor draw, int[] codes, float[] parameters, int key, Tensor? device_key, str backend) -> Tensor",
    _fake,
    arguments=key_at(4),
)
