"""`normalise` against plain loops in Python's own floats; what it does not change; wrong arguments."""

import math
import statistics

import pytest
import torch

from robustperf.data import normalise


def images(dtype=torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.2 + 0.5 * torch.rand(6, 3, 4, 5, generator=generator, dtype=dtype)


def minmax(values: list[float]) -> list[float]:
    return [(value - min(values)) / (max(values) - min(values)) for value in values]


def standard(values: list[float]) -> list[float]:
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    return [(value - mean) / deviation for value in values]


@pytest.mark.parametrize(("how", "expected"), [("minmax", minmax), ("standard", standard)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.float64, 1e-13)])
def test_each_image_is_normalised_by_its_own_values(how, expected, dtype, tolerance):
    x = images(dtype)
    found = normalise(x, how)
    assert found.dtype == dtype and found.shape == x.shape
    rows = [expected(row) for row in x.double().flatten(1).tolist()]
    torch.testing.assert_close(
        found.flatten(1).double(), torch.tensor(rows, dtype=torch.float64), rtol=0, atol=tolerance
    )
    assert normalise(x[2:3], how).equal(found[2:3])  # the others do not matter


@pytest.mark.parametrize("how", ["minmax", "standard"])
def test_brightness_and_contrast_disappear(how):
    x = images(torch.float64)
    torch.testing.assert_close(normalise(0.3 * x + 0.4, how), normalise(x, how), rtol=0, atol=1e-12)


def test_the_range_is_met_exactly():
    found = normalise(images(), "minmax").flatten(1)
    assert found.amin(1).eq(0).all() and found.amax(1).eq(1).all()


@pytest.mark.parametrize("how", ["minmax", "standard"])
def test_an_image_of_one_value_becomes_zeros(how):
    x = torch.full((2, 3, 7, 7), 0.1)  # whose mean in float32 is not 0.1
    x[1, 0, 0, 0] = 0.2
    x.requires_grad_()
    found = normalise(x, how)
    assert found[0].eq(0).all() and found[1].isfinite().all() and found[1].max() >= 1
    found.square().sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("how", ["minmax", "standard"])
def test_gradients(how):
    assert torch.autograd.gradcheck(lambda x: normalise(x, how), images(torch.float64)[:2].requires_grad_())


def test_none_returns_the_images():
    x = images()
    assert normalise(x, "none") is x


@pytest.mark.parametrize(
    ("x", "how", "error", "match"),
    [
        (torch.rand(2, 1, 3, 3), "min-max", ValueError, "how: expected one of none, minmax, standard.*'minmax'"),
        (torch.rand(1, 3, 3), "minmax", ValueError, r"x: expected shape \[B, C, H, W\], got \[1, 3, 3\]"),
        (torch.rand(2, 1, 0, 3), "minmax", ValueError, "x: expected images with pixels"),
        (torch.full((2, 1, 3, 3), math.nan), "standard", ValueError, "x: expected finite pixels, got nan"),
        (torch.full((2, 1, 3, 3), math.inf), "none", ValueError, "x: expected finite pixels, got inf"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.uint8), "minmax", TypeError, "x: expected .*float32.*, got torch.uint8"),
        ([[0.0]], "minmax", TypeError, "x: expected a tensor, got list"),
    ],
)
def test_wrong_arguments(x, how, error, match):
    with pytest.raises(error, match=match):
        normalise(x, how)


def test_no_images():
    for how in ("none", "minmax", "standard"):
        assert normalise(torch.zeros(0, 1, 3, 3), how).shape == (0, 1, 3, 3)
