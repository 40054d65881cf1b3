"""The projection in boxes whose bounds differ by coordinate, or are infinite: against scipy and closed forms."""

import math

import pytest
import torch

from python_tests.support.projection import least_norm
from robustperf.ops import halfspace_box_projection

OP = "halfspace_box_projection"
inf, nan = math.inf, math.nan
NORMS = [1, 2, inf]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}

every_norm = pytest.mark.parametrize("norm", NORMS)
every_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def problem(dim, dtype, seed=0, batch=6, free=False):
    """Points in a box [D] with widths from 0.1 to 100, normals, and how far to go; a third without an upper bound and
    a third without a lower one where `free`."""
    g = torch.Generator().manual_seed(seed)
    lower = torch.randn(dim, generator=g, dtype=torch.float64)
    upper = lower + 10 ** (3 * torch.rand(dim, generator=g, dtype=torch.float64) - 1)
    x = torch.lerp(lower, upper, torch.rand(batch, dim, generator=g, dtype=torch.float64))
    w = torch.randn(batch, dim, generator=g, dtype=torch.float64)
    room = (w.abs() * torch.where(w > 0, upper - x, x - lower)).sum(1)
    fraction = 0.05 + 0.9 * torch.rand(batch, generator=g, dtype=torch.float64)
    if free:
        upper[::3], lower[1::3] = inf, -inf
    lower, upper, x, w = (value.to(dtype) for value in (lower, upper, x, w))
    return x.clamp(lower, upper), w, fraction * room, lower, upper


@every_norm
@every_dtype
@pytest.mark.parametrize("free", [False, True], ids=["bounded", "partly free"])
@pytest.mark.parametrize("dim", [2, 9, 17])
def test_the_least_norm(backend, device, norm, dtype, free, dim):
    x, w, c, lower, upper = problem(dim, dtype, free=free)
    delta, feasible = halfspace_box_projection(
        *(v.to(device) for v in (x, w, c)), norm=norm, lower=lower.to(device), upper=upper.to(device), backend=backend
    )
    delta, tol = delta.cpu().double(), TOLERANCE[dtype]
    assert feasible.all()
    torch.testing.assert_close((w.double() * delta).sum(1), c, rtol=tol, atol=0)
    moved, width = x + delta, (upper - lower).double()
    assert ((moved >= lower - tol * width) & (moved <= upper + tol * width)).all()
    length = torch.linalg.vector_norm(delta, norm, dim=1)
    low, high = (bound.double() - x.double() for bound in (lower, upper))
    rows = zip(w.double().numpy(), c.tolist(), low.numpy(), high.numpy(), strict=True)
    truth = [least_norm(*row, norm)[0] for row in rows]
    assert length.tolist() == pytest.approx(truth, rel=max(tol, 1e-6))


@every_norm
@every_dtype
def test_without_a_box_the_closed_forms(backend, device, norm, dtype):
    x, w, c, _, _ = problem(33, dtype)
    delta, feasible = halfspace_box_projection(
        *(v.to(device) for v in (x, w, c)), norm=norm, lower=-inf, upper=inf, backend=backend
    )
    w, dual = w.double(), {1: inf, 2: 2, inf: 1}[norm]
    size = torch.linalg.vector_norm(w, dual, dim=1, keepdim=True)
    heaviest = (w.abs() == size).double()  # for p = 1
    want = c[:, None] / size * {1: heaviest * w.sign(), 2: w / size, inf: w.sign()}[norm]
    assert feasible.all()
    torch.testing.assert_close(delta.cpu().double(), want, rtol=10 * TOLERANCE[dtype], atol=1e-30)


@every_norm
@every_dtype
def test_equal_bounds_are_those_of_numbers(backend, device, norm, dtype):
    x, w, c, _, _ = problem(50, dtype)
    x = (x.sigmoid() - 0.25).clamp(-0.25, 0.75)
    c = 0.3 * (w.double().abs() * torch.where(w > 0, 0.75 - x, x + 0.25)).sum(1)
    c[0], c[1] = 1e9, -1.0  # out of reach; nothing to do
    x, w, c = x.to(device), w.to(device), c.to(device)
    numbers = halfspace_box_projection(x, w, c, norm=norm, lower=-0.25, upper=0.75, backend=backend)
    each = halfspace_box_projection(x, w, c, norm=norm, lower=x.new_full((50,), -0.25), upper=0.75, backend=backend)
    torch.testing.assert_close(each[0], numbers[0], rtol=TOLERANCE[dtype], atol=1e-6 * TOLERANCE[dtype])
    assert torch.equal(each[1], numbers[1]) and not each[1][0] and each[1][1:].all()


@every_norm
def test_scale_and_faults(backend, device, norm):
    x, w, c, lower, upper = (v.to(device) for v in problem(9, torch.float64, free=True))
    box = {"norm": norm, "lower": lower, "upper": upper, "backend": backend}
    plain, _ = halfspace_box_projection(x, w, c, **box)
    for scale in (2.0**-200, 2.0**200):
        scaled, _ = halfspace_box_projection(x, scale * w, scale * c, **box)
        torch.testing.assert_close(scaled, plain, rtol=1e-12, atol=0)
    x, w, c = x.clone(), w.clone(), c.clone()
    x[0, 2], x[1, 1], w[2, 0], w[3, 4], c[4] = upper[2] + 1, -inf, nan, inf, nan
    delta, feasible = halfspace_box_projection(x, w, c, **box)
    assert delta[:5].isnan().all() and not feasible[:5].any()
    torch.testing.assert_close(delta[5], plain[5], rtol=0, atol=0)
    assert feasible[5]
    still = halfspace_box_projection(x[5:], torch.zeros_like(w[5:]), c[5:], **box)
    assert (still[0] == 0).all() and not still[1].any()


@pytest.mark.parametrize(
    ("bound", "error", "match"),
    [
        (torch.zeros(3, dtype=torch.float64), ValueError, r"lower: expected shape \[9\], got \[3\]"),
        (torch.zeros(9), TypeError, "lower: expected torch.float64, got torch.float32"),
        (
            torch.zeros(9, dtype=torch.float64, device="meta"),
            ValueError,
            "lower: expected a tensor on cpu, got .* meta",
        ),
    ],
)
def test_wrong_bounds(bound, error, match):
    x, w, c, _, upper = problem(9, torch.float64)
    with pytest.raises(error, match=match):
        halfspace_box_projection(x, w, c, lower=bound, upper=upper)
