"""The projection onto a ball in the box, against its conditions of optimality and closed forms."""

import math

import pytest
import torch

from robustperf.attacks.ball_box import ball_box_projection


def step(dtype=torch.float64, rows=40, dim=30):
    return torch.randn(rows, dim, dtype=dtype, generator=torch.Generator().manual_seed(0))


def box(rows=40, dim=30, dtype=torch.float64):
    """(lower, upper) around zero; some coordinates have no room at all, some no bound."""
    room = torch.rand(2, rows, dim, dtype=dtype, generator=torch.Generator().manual_seed(1)) * 0.8
    room = room.masked_fill(room < 0.05, 0.0).masked_fill(room > 0.75, math.inf)
    return -room[0], room[1]


def radii(rows=40):
    return torch.logspace(-3, 1, rows, dtype=torch.float64)


@pytest.mark.parametrize("norm", [1, 2, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_result_is_in_the_ball_and_in_the_box(norm, dtype):
    delta, (lower, upper) = step(dtype), box(dtype=dtype)
    found = ball_box_projection(delta, radii(), lower, upper, norm)
    assert found.dtype == dtype and (found >= lower).all() and (found <= upper).all()
    size = torch.linalg.vector_norm(found.double(), norm, dim=1)
    assert (size <= radii() * (1 + (1e-6 if dtype == torch.float32 else 1e-12))).all()


def test_l1_is_the_nearest_point():
    """KKT: each free coordinate is lowered by one λ >= 0, which is zero where the ball is not reached."""
    delta, (lower, upper) = step(), box()
    found = ball_box_projection(delta, radii(), lower, upper, 1)
    clipped = delta.clamp(lower, upper)
    inside = clipped.abs().sum(1) <= radii()
    assert 0 < inside.sum() < len(inside)
    assert torch.equal(found[inside], clipped[inside])
    for d, r, e, lo, hi in zip(
        delta[~inside], found[~inside], radii()[~inside], lower[~inside], upper[~inside], strict=True
    ):
        assert r.abs().sum().item() == pytest.approx(e.item(), rel=1e-12)
        free = (r != 0) & (r > lo) & (r < hi)
        lowered = (d - r).abs()[free]
        level = lowered.mean() if free.any() else None
        if level is not None:
            torch.testing.assert_close(lowered, level.expand_as(lowered), rtol=1e-9, atol=1e-12)
            assert level > 0
            assert (d.abs()[r == 0] <= level + 1e-12).logical_or((torch.where(d > 0, hi, -lo) == 0)[r == 0]).all()
            full = (r != 0) & ~free
            assert (d.abs()[full] - level >= r.abs()[full] - 1e-12).all()


def test_l2_is_one_scale_of_the_step_clipped_to_the_box():
    delta, (lower, upper) = step(), box()
    found = ball_box_projection(delta, radii(), lower, upper, 2)
    corner = torch.where(delta > 0, upper, lower)
    reach = corner.norm(dim=1)
    for d, r, e, lo, hi, far in zip(delta, found, radii(), lower, upper, reach, strict=True):
        assert r.norm().item() == pytest.approx(min(e.item(), far.item()), rel=1e-12)
        free = (r > lo) & (r < hi)
        scale = (r / d)[free]
        if free.any():
            torch.testing.assert_close(scale, scale.mean().expand_as(scale), rtol=1e-9, atol=1e-12)
            full = ~free & (r != 0)
            assert ((scale.mean() * d).abs()[full] >= r.abs()[full] - 1e-12).all()


def test_l2_ends_in_the_corner_where_the_sphere_is_out_of_reach():
    found = ball_box_projection(
        torch.tensor([[0.1, -3.0, 0.0]]), torch.tensor([9.0]).double(), torch.tensor(-0.5), torch.tensor(1.0), 2
    )
    assert found.tolist() == [[1.0, -0.5, 0.0]]


def test_linf_clips():
    delta, (lower, upper) = step(), box()
    found = ball_box_projection(delta, radii(), lower, upper, math.inf)
    r = radii()[:, None]
    assert torch.equal(found, torch.maximum(torch.minimum(torch.maximum(torch.minimum(delta, r), -r), upper), lower))


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_images_zero_steps_and_zero_radii(norm):
    bounds = torch.tensor(-1.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    delta = step().view(40, 2, 3, 5)
    flat = ball_box_projection(step(), radii(), *bounds, norm)
    assert torch.equal(ball_box_projection(delta, radii(), *bounds, norm), flat.view_as(delta))
    assert not ball_box_projection(torch.zeros(2, 3), radii(2), torch.tensor(-1.0), torch.tensor(1.0), norm).any()
    nothing = ball_box_projection(step(), torch.zeros(40, dtype=torch.float64), *bounds, norm)
    assert not nothing.any() and nothing.isfinite().all()


@pytest.mark.parametrize("scale", [1e-150, 1e-20, 1e20, 1e150])
@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_steps_of_any_size(norm, scale):
    """Scaled with the ball and the box: the squares of tiny and of huge steps neither vanish nor overflow."""
    lower, upper = box()
    expected = ball_box_projection(step(), radii(), lower, upper, norm)
    found = ball_box_projection(step() * scale, radii() * scale, lower * scale, upper * scale, norm)
    torch.testing.assert_close(found / scale, expected, rtol=1e-9, atol=1e-12)
