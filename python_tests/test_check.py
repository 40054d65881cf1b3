"""The checks that others share: what they let through, and what their errors say."""

import math

import numpy as np
import pytest
import torch

from robustperf import check


@pytest.mark.parametrize("shape", [None, (2, 3), ("B", 3), ("B", "C"), (2, ...), ("B", ...), (2, 3, ...), (...,)])
def test_tensors_that_fit(shape):
    value = torch.zeros(2, 3)
    assert check.tensor("x", value, shape) is value
    assert check.tensor("x", value, shape, device=torch.device("cpu")) is value


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((3, 3), "[3, 3]"),
        ((2,), "[2]"),
        ((2, 3, 1), "[2, 3, 1]"),
        (("B", 4), "[B, 4]"),
        (("A", "B", "C"), "[A, B, C]"),
        ((3, ...), "[3, ...]"),
        ((2, 3, "C", ...), "[2, 3, C, ...]"),
        ((), "[]"),
    ],
)
def test_tensors_of_another_shape(shape, text):
    with pytest.raises(ValueError) as error:
        check.tensor("x", torch.zeros(2, 3), shape)
    assert str(error.value) == f"x: expected shape {text}, got [2, 3]"


def test_tensors_of_another_kind():
    with pytest.raises(TypeError, match="^x: expected a tensor, got ndarray$"):
        check.tensor("x", np.zeros(3))
    with pytest.raises(TypeError, match="^x: expected torch.float32 or torch.float64, got torch.float16$"):
        check.tensor("x", torch.zeros(3).half())
    with pytest.raises(TypeError, match="^y: expected torch.int64, got torch.float32$"):
        check.tensor("y", torch.zeros(3), dtypes=(torch.int64,))
    with pytest.raises(ValueError, match="^x: expected a tensor on cpu, got one on meta$"):
        check.tensor("x", torch.zeros(3, device="meta"), device=torch.device("cpu"))
    half = torch.zeros(3).bfloat16()
    assert check.tensor("x", half, dtypes=check.REAL + check.HALF) is half
    scalar = torch.zeros(())
    assert check.tensor("x", scalar, ()) is scalar


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (2, 2.0),
        (2.0, 2.0),
        ("2", 2.0),
        ("1", 1.0),
        ("inf", math.inf),
        (math.inf, math.inf),
        (np.inf, math.inf),
        (np.float32(2), 2.0),
    ],
)
def test_norms(value, number):
    assert check.norm(value) == number and isinstance(check.norm(value), float)


@pytest.mark.parametrize("value", [0, 3, -1, 1.5, -math.inf, math.nan, "l2", "", None, [2], (1, 2)])
def test_wrong_norms(value):
    with pytest.raises(ValueError, match="^norm: expected 1, 2 or inf, got"):
        check.norm(value)


@pytest.mark.parametrize("value", [(0, 1), [0.0, 1.0], (np.float32(0), 1), torch.tensor([0.0, 1.0]), np.array([0, 1])])
def test_bounds(value):
    bounds = check.bounds(value)
    assert bounds == (0.0, 1.0) and [type(b) for b in bounds] == [float, float]


@pytest.mark.parametrize("value", [1, None, (0,), (0, 1, 2), (None, 1), "ab", ((0, 1), (0, 1))])
def test_bounds_that_are_not_two_numbers(value):
    with pytest.raises(TypeError, match=r"^bounds: expected two numbers \(lower, upper\), got"):
        check.bounds(value)


@pytest.mark.parametrize("value", [(1, 0), (1, 1), (0, math.inf), (-math.inf, 0), (math.nan, 1), (0, math.nan)])
def test_bounds_that_hold_no_box(value):
    with pytest.raises(ValueError, match="^bounds: expected finite lower < upper, got"):
        check.bounds(value)


@pytest.mark.parametrize(
    ("value", "integer"),
    [(1, False), (0.1, False), (5e-324, False), (np.float64(0.3), False), (1, True), (10**30, True)],
)
def test_positive_numbers(value, integer):
    got = check.positive("eps", value, integer=integer)
    assert got == value and type(got) in (int, float)  # Python's own


@pytest.mark.parametrize("value", [0, 0.0, -1, -0.1, math.inf, math.nan, True, "1", None, 1j, [1]])
def test_numbers_that_are_not_positive(value):
    with pytest.raises(ValueError, match="^eps: expected a finite number above 0, got"):
        check.positive("eps", value)


@pytest.mark.parametrize("value", [0, -1, 1.0, 1.5, True, "1", None])
def test_integers_that_are_not_positive(value):
    with pytest.raises(ValueError, match="^steps: expected an integer above 0, got"):
        check.positive("steps", value, integer=True)


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 2, 2), (0, 3), (0, 1, 2, 2), (4, 0)])
def test_images(shape):
    value = torch.rand(shape)
    assert check.images("x", value) is value and check.images("x", value, (0.0, 1.0)) is value


def test_images_at_the_bounds():
    value = torch.tensor([[0.0, 1.0, -0.0]])
    assert check.images("x", value, (0.0, 1.0)) is value
    assert check.images("x", value * 100 - 50) is not None  # without bounds, any finite number


@pytest.mark.parametrize("bounds", [(0.0, 0.1), (-0.3, 1.0), (-0.4242129623889923, 2.821486711502075)])
@pytest.mark.parametrize("dtype", check.REAL)
def test_images_clamped_to_the_bounds_are_within_them(bounds, dtype):
    """float32 rounds 0.1 up: what `clamp` makes of an image is accepted."""
    value = torch.tensor([[-9.0, 0.05, 9.0]], dtype=dtype).clamp(*bounds)
    assert check.images("x", value, bounds) is value
    lower, upper = check.rounded(bounds, dtype)
    beyond = torch.where(value > 0.07, value + 5e-7 * (upper - lower), value - 3e-8 * (value == lower))
    assert torch.equal(check.images("x", beyond, bounds), value)
    with pytest.raises(ValueError, match=r"^x: expected pixels within .* at \[0, 2\] \(and 0 more\)$"):
        check.images("x", torch.where(value > 0.07, value + 3e-6 * (upper - lower), value), bounds)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
def test_images_that_are_not_finite(wrong, bounds):
    value = torch.rand(4, 1, 2, 2)
    value[2, 0, 1, 0] = value[3, 0, 0, 0] = wrong
    with pytest.raises(ValueError, match=rf"^x: expected finite pixels, got {wrong} at \[2, 0, 1, 0\] \(and 1 more\)$"):
        check.images("x", value, bounds)


@pytest.mark.parametrize("wrong", [1.5, -0.5])
def test_images_out_of_bounds(wrong):
    value = torch.rand(4, 3)
    value[1, 2] = wrong
    with pytest.raises(ValueError, match=rf"^x: expected pixels within \[0, 1\], got {wrong} at \[1, 2\] \(and 0 more"):
        check.images("x", value, (0.0, 1.0))


def test_what_is_no_batch_of_images():
    with pytest.raises(ValueError, match=r"^x: expected a batch of shape \[B, ...\], got \[5\]$"):
        check.images("x", torch.rand(5))
    with pytest.raises(ValueError, match=r"^x: expected shape \[B, ...\], got \[\]$"):
        check.images("x", torch.rand(()))
    with pytest.raises(TypeError, match="^x: .*got torch.uint8$"):
        check.images("x", torch.zeros(2, 3, dtype=torch.uint8))
