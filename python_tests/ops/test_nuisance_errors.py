"""Arguments that nuisance refuses, and values at the ends of what it takes."""

import math

import pytest
import torch

from python_tests.support.nuisance import BRIGHTER, STEPS, both_dtypes, fitted, program_of, run
from robustperf.ops import nuisance
from robustperf.ops.program import (
    MAX_RADIUS,
    MAX_STEPS,
    Program,
)

OP = "nuisance"

# ---- errors


X, D = torch.full((2, 3, 4, 5), 0.5), torch.zeros(1, 2, 1)


def with_pixel(value, dtype=torch.float32):
    x = X.to(dtype).clone()
    x[1, 2, 3, 4] = value
    return x


@pytest.mark.parametrize("x, delta, program, error, message", [
    (X.half(), D, BRIGHTER, TypeError, r"x: expected torch.float32 or torch.float64, got torch.float16"),
    (X.mul(255).byte(), D, BRIGHTER, TypeError, r"x: .* got torch.uint8"),
    (X.numpy(), D, BRIGHTER, TypeError, r"x: expected a tensor, got ndarray"),
    (None, D, BRIGHTER, TypeError, r"x: expected a tensor, got NoneType"),
    (X[0], D, BRIGHTER, ValueError, r"x: expected shape \[B, C, H, W\], got \[3, 4, 5\]"),
    (X[None], D, BRIGHTER, ValueError, r"x: expected shape \[B, C, H, W\], got \[1, 2, 3, 4, 5\]"),
    (X[:, :0], D, BRIGHTER, ValueError, r"x: expected images with pixels, got shape \[2, 0, 4, 5\]"),
    (X[:, :, :0], D, BRIGHTER, ValueError, r"x: expected images with pixels, got shape \[2, 3, 0, 5\]"),
    (X[..., :0], D, BRIGHTER, ValueError, r"x: expected images with pixels, got shape \[2, 3, 4, 0\]"),
    (X, D.half(), BRIGHTER, TypeError, r"delta: expected torch.float32, got torch.float16"),
    (X, D.double(), BRIGHTER, TypeError, r"delta: expected torch.float32, got torch.float64"),
    (X.double(), D, BRIGHTER, TypeError, r"delta: expected torch.float64, got torch.float32"),
    (X, [0.0], BRIGHTER, TypeError, r"delta: expected a tensor, got list"),
    (X, D[0], BRIGHTER, ValueError, r"delta: expected shape \[K, 2, 1\], got \[2, 1\]"),
    (X, D[:, :1], BRIGHTER, ValueError, r"delta: expected shape \[K, 2, 1\], got \[1, 1, 1\]"),
    (X, D[..., :0], BRIGHTER, ValueError, r"delta: expected shape \[K, 2, 1\], got \[1, 2, 0\]"),
    (X, torch.zeros(1, 2, 2), BRIGHTER, ValueError, r"delta: expected shape \[K, 2, 1\], got \[1, 2, 2\]"),
    (X, D, program_of("fog"), ValueError, r"delta: expected shape \[K, 2, 405\], got \[1, 2, 1\]"),
    (X, D, program_of("add"), ValueError, r"delta: expected shape \[K, 2, 60\], got \[1, 2, 1\]"),
    (X, D.to("meta"), BRIGHTER, ValueError, r"delta: expected a tensor on cpu, got one on meta"),
    (X[:, :1], D, program_of("saturation"), ValueError, r"x: saturation expected RGB images, 3 channels, got \[1, 4"),
    (X[:, :2], D, program_of("hue"), ValueError, r"x: hue expected RGB images, 3 channels, got \[2, 4, 5\]"),
    (X[:, :2], D, program_of("contrast"), ValueError, r"x: contrast expected grey or RGB images, 1 or 3 channels, got"),
    (X, D, program_of("background of grey"), ValueError, r"x: background expected grey images, 1 channel, got \[3, 4"),
    (X[:, :1], D, program_of("background of a corner"), ValueError, r"x: background expected RGB images, 3 channels"),
    (X[:, :1], D, program_of("background of a colour"), ValueError, r"x: background expected RGB images, 3 channels"),
    (X, D, program_of("blur"), ValueError, r"x: blur expected images larger than the blur's radius 4, got \[3, 4, 5\]"),
    (X[:, :1], D, Program((STEPS["background of grey"],) * 2), ValueError, r"x: background expected grey .* got \[3,"),
    (X, D, Program((STEPS["add"], STEPS["brightness"]), (0, 0)), ValueError,
     r"x: brightness has 1 components of delta for this shape and shares the delta of a step that has 60"),
])  # fmt: skip
def test_errors_name_the_argument_and_what_it_got(backend, x, delta, program, error, message):
    with pytest.raises(error, match=message):
        nuisance(x, delta, program, backend=backend)


@both_dtypes
@pytest.mark.parametrize("value, message", [
    (math.nan, r"expected finite pixels, got nan at \[1, 2, 3, 4\] \(and 0 more\)"),
    (math.inf, r"expected finite pixels, got inf at \[1, 2, 3, 4\] \(and 0 more\)"),
    (-math.inf, r"expected finite pixels, got -inf at \[1, 2, 3, 4\] \(and 0 more\)"),
    (1 + 2.0**-19, r"expected pixels within \[0, 1\], got 1.000001907348\d+ at \[1, 2, 3, 4\] \(and 0 more\)"),
    (-(2.0**-19), r"expected pixels within \[0, 1\], got -1.907348\d+e-06 at \[1, 2, 3, 4\] \(and 0 more\)"),
    (255.0, r"expected pixels within \[0, 1\], got 255.0 at \[1, 2, 3, 4\] \(and 0 more\)"),
])  # fmt: skip
def test_pixels_outside_the_range_are_named(backend, value, message, dtype):
    if backend in ("cuda", "triton"):
        pytest.skip("a GPU is not waited for")
    for program in (BRIGHTER, program_of("of much")):
        for draws in (1, 3):
            x, program = with_pixel(value, dtype), fitted(program, 4, 5)
            with pytest.raises(ValueError, match=f"^x: {message}"):
                nuisance(x, torch.zeros(draws, 2, program.layout((3, 4, 5)).dim, dtype=dtype), program, backend=backend)


def test_pixels_beyond_the_range_by_rounding_are_clamped(backend, device):
    if backend in ("cuda", "triton"):
        pytest.skip("a GPU is not waited for")
    for value, clamped in ((1 + 2.0**-23, 1.0), (-1e-45, 0.0), (-3e-8, 0.0)):
        out = run(backend, device, BRIGHTER, with_pixel(value), D, torch.float32)
        assert out[0, 1, 2, 3, 4].item() == clamped


def test_minus_zero_and_the_ends_of_the_range_are_pixels(backend, device):
    for value in (0.0, -0.0, 1.0, 1e-45):
        out = run(backend, device, BRIGHTER, with_pixel(value), D, torch.float32)
        assert out[0, 1, 2, 3, 4].item() == torch.tensor(value).item()


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match=r"backend: expected one of reference, native, cuda, triton, got 'fast'"):
        nuisance(X, D, BRIGHTER, backend="fast")


def test_programs_of_no_steps_and_of_too_many():
    for count in (0, MAX_STEPS + 1):
        with pytest.raises(ValueError, match=rf"program: expected 1 to {MAX_STEPS} steps, got {count}"):
            Program((STEPS["hue"],) * count)
    assert STEPS["blur"].settings[0] < MAX_RADIUS


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_delta_that_is_not_finite_is_refused(backend, device, wrong):
    if backend in ("cuda", "triton"):
        pytest.skip("a GPU is not waited for")
    delta = torch.zeros(2, 3, 1, device=device)
    delta[1, 2, 0] = wrong
    with pytest.raises(ValueError, match=rf"delta: expected finite numbers, got {wrong} at \[1, 2, 0\] \(and 0 more\)"):
        nuisance(torch.full((3, 1, 4, 4), 0.5, device=device), delta, BRIGHTER, backend=backend)


@both_dtypes
def test_minus_zero_is_black(backend, device, dtype):
    x = torch.tensor([-0.0, 0.5], dtype=dtype, device=device).view(1, 1, 1, 2)
    out = nuisance(x, torch.full((1, 1, 1), 0.5, dtype=dtype, device=device), BRIGHTER, backend=backend)
    assert out.flatten().tolist() == [0.0, 0.75]


def test_hue_leaves_a_grey_and_its_gradient(backend, device):
    x = torch.full((1, 3, 1, 1), 0.5, device=device, requires_grad=True)
    out = nuisance(x, torch.full((1, 1, 1), 0.2, device=device), Program((STEPS["hue"],)), backend=backend)
    assert torch.equal(out[0], x)
    out.backward(torch.tensor([1.0, 2.0, 3.0], device=device).view(out.shape))
    assert x.grad.flatten().tolist() == [1, 2, 3]
