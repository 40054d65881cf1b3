"""The step into a ball at the box: rounding, faults, bounds of each kind, layouts and errors."""

import math

import pytest
import torch

from python_tests.support.ball import project, sample
from robustperf.ops import ball_box_projection

OP = "ball_box_projection"
inf, nan = math.inf, math.nan

every_norm = pytest.mark.parametrize("norm", [1, 2, inf])
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@every_norm
@every_dtype
def test_the_rounded_point_is_in_the_box(backend, device, norm, dtype):
    """Also where a step is much longer than the numbers near the bound, and its rounding larger than theirs."""
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(50, 60, generator=g, dtype=torch.float64) * 1000).to(dtype)
    upper = (1000 + 3 * torch.rand(60, generator=g, dtype=torch.float64)).to(dtype)
    lower = (-0.1 * torch.rand(60, generator=g, dtype=torch.float64)).to(dtype)
    delta = (5000 * torch.randn(50, 60, generator=g, dtype=torch.float64).sign()).to(dtype)
    got = project(x, delta, torch.full((50,), 1e6), norm, backend, device, lower, upper)
    point = x + got
    assert (point >= lower).all() and (point <= upper).all()
    want = torch.where(delta > 0, upper, lower)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(point, want, rtol=2 * eps, atol=2000 * eps)


@every_norm
@every_dtype
def test_zero_steps_and_zero_radii(backend, device, norm, dtype):
    x, delta, radii, _, _ = sample(5, 33, dtype)
    x = x.sigmoid()
    assert not project(x, torch.zeros_like(x), radii[norm], norm, backend, device).any()
    assert not project(x, delta, torch.zeros(5), norm, backend, device).any()


@every_norm
@every_dtype
def test_faults(backend, device, norm, dtype):
    x, delta, radii, lower, upper = sample(9, 33, dtype, seed=1)
    want = project(x, delta, radii[norm], norm, backend, device, lower, upper)
    assert want.isfinite().all()
    x, delta, radius = x.clone(), delta.clone(), radii[norm].clone()
    x[0, 2], x[1, 32], x[2, 0] = upper[2] + 1, lower[32] - 1, nan
    delta[3, 32] = nan
    radius[4], radius[5] = nan, -1.0
    radius[6] = 0.0
    delta[6, 0] = nan
    got = project(x, delta, radius, norm, backend, device, lower, upper)
    assert got[:7].isnan().all()
    assert torch.equal(got[7:], want[7:])
    crossed = project(x[7:], delta[7:], radius[7:], norm, backend, device, lower=upper, upper=lower)
    assert crossed.isnan().all()


@every_norm
def test_infinite_steps_and_radii(backend, device, norm):
    x = torch.full((2, 3), 0.5)
    delta = torch.tensor([[0.1, -0.2, 0.0], [inf, -0.2, 0.0]])
    got = project(x, delta, torch.tensor([inf, 0.25]), norm, backend, device)
    torch.testing.assert_close(got[0], torch.tensor([0.5, -0.5, 0.0]) if norm == 2 else delta[0], rtol=0, atol=0)
    if norm == inf:
        assert got[1].tolist() == torch.tensor([0.25, -0.2, 0.0]).tolist()
    else:
        assert got[1].isnan().all()
    unbounded = project(x[:1], delta[:1], torch.tensor([inf]), norm, backend, device, upper=inf)
    assert unbounded.isnan().all() if norm == 2 else torch.equal(unbounded, delta[:1])


@every_norm
@every_dtype
@pytest.mark.parametrize("batch, dim", [(0, 5), (0, 0), (3, 0)])
def test_nothing_to_do(backend, device, norm, dtype, batch, dim):
    nothing = torch.zeros(batch, dim, dtype=dtype)
    assert project(nothing, nothing, torch.ones(batch), norm, backend, device).shape == (batch, dim)


@every_norm
def test_bounds_are_numbers_or_broadcast_to_an_image(backend, device, norm):
    g = torch.Generator().manual_seed(2)
    x, delta = torch.rand(4, 3, 2, 5, generator=g), torch.randn(4, 3, 2, 5, generator=g)
    radius = {1: 8.0, 2: 2.0, inf: 0.5}[norm] * torch.ones(4)
    want = project(x, delta, radius, norm, backend, device)
    flat = project(x.flatten(1), delta.flatten(1), radius, norm, backend, device)
    assert torch.equal(want.flatten(1), flat)
    for lower, upper in (
        (torch.tensor(0.0), torch.ones(3, 2, 5)), (torch.zeros(3, 1, 1), 1.0), (0, torch.ones(2, 1)),
    ):  # fmt: skip
        assert torch.equal(project(x, delta, radius, norm, backend, device, lower, upper), want)
    each = torch.linspace(1.0, 1.5, 30).view(3, 2, 5)
    got = project(x, delta, radius, norm, backend, device, 0.0, each)
    assert ((x + got <= each) & (x + got >= 0)).all() and (x + got > 1).any()


@every_norm
@every_dtype
def test_layout_and_neighbours_do_not_matter(backend, device, norm, dtype):
    x, delta, radii, lower, upper = sample(10, 34, dtype, seed=3)
    radius = radii[norm]

    def moved(x, delta, radius, lower=lower, upper=upper):
        return project(x, delta, radius, norm, backend, device, lower, upper)

    want = moved(x, delta, radius)
    assert torch.equal(moved(x.t().contiguous().t(), delta, radius), want)
    assert torch.equal(moved(x, delta.t().contiguous().t(), torch.stack([radius, -radius], 1)[:, 0]), want)
    assert torch.equal(moved(x[::3], delta[::3], radius[::3]), want[::3])
    pair = torch.stack([lower, upper], 1)
    assert torch.equal(moved(x, delta, radius, pair[:, 0], pair[:, 1]), want)
    assert torch.equal(
        moved(x[:1].expand(4, 34), delta[:1].expand(4, 34), radius[:1].expand(4)), want[:1].expand(4, 34)
    )
    for row in range(10):
        assert torch.equal(moved(x[row : row + 1], delta[row : row + 1], radius[row : row + 1])[0], want[row])


def test_radius_of_either_dtype_and_norm_a_text(backend, device):
    x, delta, radii, lower, upper = sample(5, 10, torch.float32)
    for norm in (1, 2, inf):
        radius = radii[norm].float()
        want = project(x, delta, radius.double(), norm, backend, device, lower, upper)
        assert torch.equal(project(x, delta, radius, str(norm), backend, device, lower, upper), want)


def test_inputs_are_left_as_they_were(backend, device):
    x, delta, radii, lower, upper = (value for value in sample(5, 10, torch.float64))
    tensors = [t.to(device) for t in (x, delta, radii[2], lower, upper)]
    before = [t.clone() for t in tensors]
    ball_box_projection(*tensors[:3], lower=tensors[3], upper=tensors[4], backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


X, R = torch.full((3, 4), 0.5), torch.ones(3)


@pytest.mark.parametrize("x, delta, radius, keywords, error, message", [
    (X.half(), X, R, {}, TypeError, r"x: expected torch.float32 or torch.float64, got torch.float16"),
    (X.numpy(), X, R, {}, TypeError, r"x: expected a tensor, got ndarray"),
    (torch.tensor(1.0), X, R, {}, ValueError, r"x: expected shape \[B, ...\], got \[\]"),
    (X, X.double(), R, {}, TypeError, r"delta: expected torch.float32, got torch.float64"),
    (X, X[:, :3], R, {}, ValueError, r"delta: expected shape \[3, 4\], got \[3, 3\]"),
    (X, X.to("meta"), R, {}, ValueError, r"delta: expected a tensor on cpu, got one on meta"),
    (X, X, 1.0, {}, TypeError, r"radius: expected a tensor, got float"),
    (X, X, R.half(), {}, TypeError, r"radius: .* got torch.float16"),
    (X, X, R[:2], {}, ValueError, r"radius: expected shape \[3\], got \[2\]"),
    (X, X, R, {"norm": 3}, ValueError, r"norm: expected 1, 2 or inf, got 3"),
    (X, X, R, {"lower": 1.0, "upper": 0.0}, ValueError, r"bounds: expected lower < upper, got \(1.0, 0.0\)"),
    (X, X, R, {"lower": nan}, ValueError, r"bounds: expected lower < upper, got \(nan, 1.0\)"),
    (X, X, R, {"lower": None}, TypeError, r"lower: expected a number or a tensor, got None"),
    (X, X, R, {"upper": torch.ones(4).double()}, TypeError, r"upper: expected torch.float32, got torch.float64"),
    (X, X, R, {"upper": torch.ones(3)}, ValueError, r"upper: expected a shape that broadcasts to \[4\], got \[3\]"),
    (X, X, R, {"upper": torch.ones(4, device="meta")}, ValueError, r"upper: expected a tensor on cpu, .* meta"),
    (X, X, R, {"backend": "fast"}, ValueError, r"backend: expected one of .* got 'fast'"),
])  # fmt: skip
def test_errors_name_the_argument_and_what_it_got(x, delta, radius, keywords, error, message):
    with pytest.raises(error, match=message):
        ball_box_projection(x, delta, radius, **keywords)
