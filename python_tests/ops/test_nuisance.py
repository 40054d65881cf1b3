"""Every transform against its definition in float64, and the layouts and sizes of its operands."""

import pytest
import torch

from python_tests.support.nuisance import STEPS, T, both_dtypes, case, channels_of, close, run

OP = "nuisance"

# ---- every transform


SMALL = [(1, 1), (1, 9), (9, 1), (7, 5)]
LARGE = [(33, 21), (40, 40), (2, 700)]  # more than a tile of 512 pixels, and a row longer than one


@both_dtypes
@pytest.mark.parametrize("name", STEPS)
def test_small_images_of_any_number_of_channels(backend, device, name, dtype):
    for channels in channels_of(name):
        for height, width in SMALL:
            program, x, delta, want = case(name, channels, height, width, 3)
            close(run(backend, device, program, x, delta, dtype), want, 2e-6 if dtype == torch.float32 else 1e-12)


@both_dtypes
@pytest.mark.parametrize("name", STEPS)
def test_images_of_several_tiles(backend, device, name, dtype):
    warps = STEPS[name].transform == T.AFFINE
    for height, width in LARGE:
        program, x, delta, want = case(name, 3 if 3 in channels_of(name) else 1, height, width, 1)
        # a warp's place among the pixels is rounded to the pixels' dtype
        near = {torch.float32: 2e-7 * width if warps else 2e-6, torch.float64: 1e-15 * width if warps else 1e-12}
        close(run(backend, device, program, x, delta, dtype), want, max(near[dtype], 1e-12))


def test_what_the_tests_above_compare_is_not_trivial():
    """Some values are clamped and some are not, warps read outside, and nothing is the identity."""
    for name in STEPS:
        _, x, delta, want = case(name, 3 if 3 in channels_of(name) else 1, 33, 21, 1)
        assert want.shape[2] != x.shape[1] or (want[0] - x).abs().amax((1, 2, 3)).gt(0.01).all(), name
        inside = (want > 0) & (want < 1)
        assert inside.double().mean() > 0.3, name
        if name in ("brightness", "contrast", "saturation", "add and clamp", "impulse"):
            assert (want[0][x > 0.5] == 1).any() and (want[0][x < 0.5] == 0).any(), name
