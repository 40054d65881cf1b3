"""The shared checks of arguments: what they accept, and their errors."""

import math
import re
from fractions import Fraction

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
def test_tensors_of_a_wrong_shape(shape, text):
    with pytest.raises(ValueError) as error:
        check.tensor("x", torch.zeros(2, 3), shape)
    assert str(error.value) == f"x: expected shape {text}, got [2, 3]"


def test_tensors_of_a_wrong_type():
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


@pytest.mark.parametrize("value", [0, 3, -1, 1.5, -math.inf, math.nan, "l2", "", None, [2], (1, 2), True])
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
def test_empty_and_infinite_bounds(value):
    with pytest.raises(ValueError, match="^bounds: expected finite lower < upper, got"):
        check.bounds(value)


@pytest.mark.parametrize("value", [1, 0.1, 5e-324, np.float64(0.3), np.float32(0.5), 10**400, Fraction(1, 3)])
def test_a_number_in_range_is_returned_as_pythons_own(value):
    got = check.number("eps", value, above=0)
    assert got == value and type(got) in (int, float, Fraction)


NO_NUMBERS = [math.inf, -math.inf, math.nan, True, np.True_, "1", None, 1j, [1], torch.tensor(1.0)]


@pytest.mark.parametrize(
    ("limits", "wanted", "inside", "outside"),
    [
        ({}, "a finite number", [-1e300, 0, 5], []),
        ({"above": 0}, "a finite number above 0", [5e-324, 3], [0, 0.0, -1]),
        ({"least": 0}, "a finite number >= 0", [0, 3], [-5e-324]),
        ({"most": 2}, "a finite number <= 2", [-9, 2], [2.5]),
        ({"below": 2}, "a finite number below 2", [-9, 1.9], [2]),
        ({"least": 0, "most": 1}, r"a number in \[0, 1\]", [0, 1, 0.5], [-0.1, 1.1]),
        ({"above": 0.1, "most": 10}, r"a number in \(0.1, 10\]", [0.11, 10], [0.1, 10.1]),
        ({"least": 0, "below": 1}, r"a number in \[0, 1\)", [0, 0.9], [1, -1]),
        ({"above": 0, "below": 1}, r"a number in \(0, 1\)", [0.5], [0, 1]),
    ],
)
def test_the_range_of_a_number(limits, wanted, inside, outside):
    for value in inside:
        assert check.number("eps", value, **limits) == value
    for value in [*outside, *NO_NUMBERS]:
        with pytest.raises(ValueError, match=f"^eps: expected {wanted}, got {re.escape(repr(value))}$"):
            check.number("eps", value, **limits)


@pytest.mark.parametrize(
    ("limits", "wanted", "inside", "outside"),
    [
        ((1,), "an integer above 0", [1, 10**30, np.int64(3), np.uint8(255)], [0, -1]),
        ((0,), "an integer >= 0", [0, 7], [-1]),
        ((-3, 5), r"an integer in -3\.\.5", [-3, 0, 5], [-4, 6]),
        ((0, 2**64 - 1), r"an integer in 0\.\.2\^64-1", [0, 2**64 - 1], [-1, 2**64]),
        ((0, 2**34), r"an integer in 0\.\.2\^34", [2**34], [2**34 + 1]),
        ((-(2**63), 2**63 - 1), r"an integer in -2\^63\.\.2\^63-1", [-(2**63), -100], [2**63, -(2**63) - 1]),
    ],
)
def test_the_range_of_an_integer(limits, wanted, inside, outside):
    for value in inside:
        got = check.integer("steps", value, *limits)
        assert got == value and type(got) is int
    for value in [*outside, *NO_NUMBERS, 1.0, 1.5, np.float64(1)]:
        with pytest.raises(ValueError, match=f"^steps: expected {wanted}, got {re.escape(repr(value))}$"):
            check.integer("steps", value, *limits)


def test_labels():
    check.labels("y", torch.tensor([0, 2, 1]), 3)
    check.labels("y", torch.zeros(0, dtype=torch.int64), 3)
    for wrong in (3, -1, -(2**63)):
        with pytest.raises(ValueError, match=f"^y: expected labels in 0..2, got {wrong}$"):
            check.labels("y", torch.tensor([0, wrong, 2]), 3)


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


def test_anything_but_a_batch_of_images():
    with pytest.raises(ValueError, match=r"^x: expected a batch of shape \[B, ...\], got \[5\]$"):
        check.images("x", torch.rand(5))
    with pytest.raises(ValueError, match=r"^x: expected shape \[B, ...\], got \[\]$"):
        check.images("x", torch.rand(()))
    with pytest.raises(TypeError, match="^x: .*got torch.uint8$"):
        check.images("x", torch.zeros(2, 3, dtype=torch.uint8))
