"""The projection against scipy, optimality conditions and closed forms; then every backend against float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from robustperf.ops import halfspace_box_projection

OP = "halfspace_box_projection"
inf, nan = math.inf, math.nan
NORMS = [1, 2, inf]
DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
UNIT = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}

every_norm = pytest.mark.parametrize("norm", NORMS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def rows(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


def project(x, w, c, norm, backend, device="cpu", **box):
    delta, feasible = halfspace_box_projection(
        x.to(device), w.to(device), c.to(device), norm=norm, backend=backend, **box
    )
    assert delta.shape == x.shape and delta.dtype == x.dtype and delta.device.type == torch.device(device).type
    assert feasible.shape == c.shape and feasible.dtype == torch.bool
    return delta.cpu(), feasible.cpu()


def same(got, want):
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


def room(x, w, lower=0.0, upper=1.0):
    x, w = x.double(), w.double()
    return torch.where(w > 0, upper - x, torch.where(w < 0, x - lower, 0.0))


def corner(x, w, lower=0.0, upper=1.0):
    return (w.double().sign() * room(x, w, lower, upper)).to(x.dtype)


def sample(batch, dim, dtype, seed=0, lower=0.0, upper=1.0, low=0.02, high=0.98):
    """Points, normals and how far to go: from `low` to `high` of what the box has room for."""
    g = torch.Generator().manual_seed(seed)
    x = lower + (upper - lower) * torch.rand(batch, dim, generator=g, dtype=torch.float64)
    x = x.to(dtype).clamp(lower, upper)
    w = torch.randn(batch, dim, generator=g, dtype=torch.float64).to(dtype)
    share = low + (high - low) * torch.rand(batch, generator=g, dtype=torch.float64)
    return x, w, share * (w.double().abs() * room(x, w, lower, upper)).sum(1)


def truth(x, w, c, norm, **box):
    """The float64 reference."""
    return project(x.double(), w.double(), c.double(), norm, "reference", **box)


def error(delta, want):
    """Of each row, in the row's 2-norm."""
    size = want.norm(dim=1)
    off = (delta.double() - want).norm(dim=1)
    return torch.where(off == 0, 0.0, off / size)


def multiplier(delta, weight, h, norm, tol):
    """The one number of the optimality conditions; fails where there is none.

    Convex duality: delta solves the problem iff <w, delta> = c and, for one t, each coordinate moves by
    min(t |w_i|, h_i) for p = 2 and min(t, h_i) for p = inf; for p = 1 by h_i where |w_i| > t, by 0 where |w_i| < t.
    """
    move = delta.abs()
    partly = (move < h * (1 - tol)) & (weight > 0)
    if norm == 1:
        begun = (move > 0) & (weight > 0)
        if not begun.any():
            return
        least = weight[begun].min()
        assert (weight[partly] <= least * (1 + tol)).all(), "a heavier coordinate has room left"
        return
    rate = weight if norm == 2 else torch.ones_like(weight)
    speed = move / rate.clamp_min(1e-300)
    if partly.any():
        t = speed[partly].max()
        assert (speed[partly] >= t * (1 - tol)).all(), "coordinates inside the box move at one speed"
        full = (weight > 0) & ~partly
        assert (h[full] <= t * rate[full] * (1 + tol) + tol * h.max()).all(), "a coordinate went too far"


def check_optimal(x, w, c, delta, norm, lower=0.0, upper=1.0, tol=1e-9):
    for i in range(x.shape[0]):
        d, v = delta[i].double(), w[i].double()
        h = room(x[i], v, lower, upper)
        assert (d * v >= 0).all() and (d[v == 0] == 0).all()
        assert (d.abs() <= h * (1 + tol)).all()
        assert (d * v).sum().item() == pytest.approx(c[i].item(), rel=tol)
        multiplier(d, v.abs(), h, norm, tol)


# ---- the reference is right, by other people's solvers


def solve(x, w, c, norm):
    """The least norm, and delta for p = 2, by scipy."""
    n = len(x)
    low, high = -x, 1 - x
    if norm == 2:
        start = np.where(w > 0, high, low)  # feasible
        found = minimize(
            lambda d: d @ d,
            start,
            jac=lambda d: 2 * d,
            bounds=list(zip(low, high, strict=True)),
            constraints={"type": "ineq", "fun": lambda d: w @ d - c, "jac": lambda d: w},
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 500},
        )
        assert found.success
        return math.sqrt(found.fun), found.x
    if norm == 1:  # d = p - q
        found = linprog(
            np.ones(2 * n), A_ub=-np.r_[w, -w][None], b_ub=[-c], bounds=[(0, h) for h in high] + [(0, -v) for v in low]
        )
    else:  # |d_i| <= t
        eye, one = np.eye(n), np.ones((n, 1))
        found = linprog(
            np.r_[np.zeros(n), 1],
            A_ub=np.block([[-w[None], np.zeros((1, 1))], [eye, -one], [-eye, -one]]),
            b_ub=np.r_[-c, np.zeros(2 * n)],
            bounds=[*zip(low, high, strict=True), (0, None)],
        )
    assert found.status == 0
    return found.fun, None


@every_norm
@pytest.mark.parametrize("dim", [1, 2, 3, 7])
def test_reference_against_scipy(norm, dim):
    x, w, c = sample(12, dim, torch.float64, seed=dim)
    delta, feasible = truth(x, w, c, norm)
    assert feasible.all()
    check_optimal(x, w, c, delta, norm)
    for i in range(12):
        size, place = solve(x[i].numpy(), w[i].numpy(), c[i].item(), norm)
        assert torch.linalg.vector_norm(delta[i], norm).item() == pytest.approx(size, rel=1e-6)
        if place is not None:
            np.testing.assert_allclose(delta[i].numpy(), place, atol=1e-5)


@every_norm
def test_without_active_bounds_the_closed_forms(backend, device, norm):
    g = torch.Generator().manual_seed(1)
    x = torch.full((8, 21), 0.5, dtype=torch.float64)
    w = torch.randn(8, 21, generator=g, dtype=torch.float64)
    largest, at = w.abs().max(1)
    c = largest * 0.3  # nothing moves by 0.5, whatever the norm
    delta, feasible = project(x, w, c, norm, backend, device)
    if norm == 2:
        want = w * (c / (w * w).sum(1))[:, None]
    elif norm == inf:
        want = w.sign() * (c / w.abs().sum(1))[:, None]
    else:
        want = torch.zeros_like(w)
        want[torch.arange(8), at] = c / w[torch.arange(8), at]
    assert feasible.all() and error(delta, want).max() < 1e-14


# ---- every backend is the reference


@every_dtype
@every_norm
def test_large_random_rows(backend, device, norm, dtype):
    x, w, c = sample(64, 3072, dtype)
    c[::9] *= 1e-4
    c[1::9] *= 0.03
    delta, feasible = project(x, w, c, norm, backend, device)
    want, _ = truth(x, w, c, norm)
    assert feasible.all() and error(delta, want).max() <= TOLERANCE[dtype]
    check_optimal(x, w, c, want, norm)


@every_dtype
@every_norm
@pytest.mark.parametrize("dim", [1, 2, 15, 16, 17, 31, 32, 33, 100])
def test_odd_dimensions(backend, device, dim, norm, dtype):
    x, w, c = sample(40, dim, dtype, seed=dim)
    c[:4] = torch.tensor([0.0, -1.0, 1e6, inf])
    delta, feasible = project(x, w, c, norm, backend, device)
    want, can = truth(x, w, c, norm)
    assert torch.equal(feasible, can) and feasible.sum() == 38
    assert error(delta, want).max() <= TOLERANCE[dtype]


@every_dtype
@every_norm
@pytest.mark.parametrize("lower, upper", [(-1.0, 1.0), (0.0, 255.0), (-0.25, 0.125), (1000.0, 1001.0)])
def test_other_boxes(backend, device, norm, dtype, lower, upper):
    x, w, c = sample(16, 50, dtype, lower=lower, upper=upper)
    delta, feasible = project(x, w, c, norm, backend, device, lower=lower, upper=upper)
    want, _ = truth(x, w, c, norm, lower=lower, upper=upper)
    assert feasible.all() and error(delta, want).max() <= TOLERANCE[dtype]
    check_optimal(x, w, c, want, norm, lower, upper)
    assert (delta.abs() <= room(x, w, lower, upper).to(dtype)).all()


@every_dtype
@every_norm
def test_the_constraint_and_the_box_hold_up_to_rounding(backend, device, norm, dtype):
    x, w, c = sample(32, 500, dtype, seed=5, high=1.0)
    delta, feasible = project(x, w, c, norm, backend, device)
    # each delta_i is off by half a unit in its last place, and all summands have one sign
    assert ((w.double() * delta.double()).sum(1) >= c * (1 - 500 * 2.0**-52 - UNIT[dtype]))[feasible].all()
    assert (delta.abs() <= room(x, w).to(dtype)).all()
    assert (x + delta >= -UNIT[dtype]).all() and (x + delta <= 1 + UNIT[dtype]).all()


def test_p1_ends_with_the_coordinate_that_meets_c(backend, device):
    """Nothing is left for the next one, not even a rounding error of the last."""
    x = rows([0.0, 0.25, 0.0, 0.0, 0.0, 0.0, 0.25, 0.125, 0.125], dtype=torch.float32)
    w = rows([0.0, 0.5, 0.0, 0.0, 1.0, 2.0, 1.0, 3.0, -7.0], dtype=torch.float32)
    c = (w.double().abs() * room(x, w)).sum(1) * 2.0**-20
    delta, _ = project(x, w, c, 1, backend, device)
    assert delta.count_nonzero() == 1 and delta[0, 8] < 0


VALUE = st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0])
WEIGHT = st.sampled_from([0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 3.0, -7.0, 2.0**-10, -(2.0**-30)])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), norm=st.sampled_from(NORMS), dtype=st.sampled_from(DTYPES))
def test_ties_bounds_and_zeros_satisfy_the_optimality_conditions(backend, device, data, norm, dtype):
    dim = data.draw(st.integers(1, 40), "dim")
    x = rows(data.draw(st.lists(VALUE, min_size=dim, max_size=dim), "x"), dtype=dtype)
    w = rows(data.draw(st.lists(WEIGHT, min_size=dim, max_size=dim), "w"), dtype=dtype)
    total = (w.double().abs() * room(x, w)).sum(1)
    assume(total.item() > 0)
    c = total * data.draw(st.sampled_from([2.0**-20, 0.125, 0.5, 0.875, 1 - 2.0**-6]), "share")
    delta, feasible = project(x, w, c, norm, backend, device)
    assert feasible.all()
    # every number here is a small multiple of a power of two: only the division by the slope rounds
    check_optimal(x, w, c, delta, norm, tol=2 * UNIT[dtype] if dtype == torch.float32 else 1e-11)


@every_dtype
@every_norm
def test_a_wide_dynamic_range_where_only_tiny_weights_have_room(backend, device, norm, dtype):
    dim = 60
    w = 2.0 ** -torch.arange(dim, dtype=torch.float64)[None].repeat(4, 1)
    w[1] *= -1
    w[2, ::2] *= -1
    x = torch.where(w > 0, 1.0, 0.0).double()  # no room at all
    x[:, 40:] = 0.5
    x[3, :] = 0.5
    c = 0.6 * (w.abs() * room(x, w)).sum(1)
    x, w = x.to(dtype), w.to(dtype)
    delta, feasible = project(x, w, c, norm, backend, device)
    assert feasible.all() and (delta[:3, :40] == 0).all()
    check_optimal(x, w, c, delta, norm, tol=4 * UNIT[dtype] if dtype == torch.float32 else 1e-12)
    assert error(delta, truth(x, w, c, norm)[0]).max() <= TOLERANCE[dtype]


def test_weights_whose_squares_vanish_do_not_move_what_need_not_move(backend, device):
    # the first coordinate alone reaches c: the second one is worth 1e-200 of it, and has to stay where it is
    for large, tiny in ((1.0, 1e-200), (1e200, 1e-200), (2.0**500, 2.0**-500)):
        delta, feasible = project(rows([0.0, 0.0]), rows([large, tiny]), rows(large), 2, backend, device)
        assert feasible.all() and delta[0, 0] == 1 and abs(delta[0, 1]) < 1e-12


# ---- the scale of w does not matter


@every_norm
@pytest.mark.parametrize(
    "dtype, powers",
    [(torch.float32, (-60, -30, 30, 60)), (torch.float64, (-660, -30, 30, 660))],
    ids=["float32", "float64"],
)
def test_powers_of_two_change_no_bit(backend, device, norm, dtype, powers):
    x, w, c = sample(16, 75, dtype, seed=3)
    c[:3] = torch.tensor([0.0, -2.0, 1e4])
    want = project(x, w, c, norm, backend, device)
    for power in powers:
        got = project(x, w * 2.0**power, c * 2.0**power, norm, backend, device)
        assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])


@every_norm
@pytest.mark.parametrize(
    "dtype, scales",
    [(torch.float32, (1e-30, 1e-9, 1e9, 1e30)), (torch.float64, (1e-200, 1e-9, 1e9, 1e200))],
    ids=["float32", "float64"],
)
def test_any_scale_gives_the_same_step(backend, device, norm, dtype, scales):
    x, w, c = sample(16, 75, dtype, seed=4)
    want = project(x, w, c, norm, backend, device)
    for scale in scales:
        delta, feasible = project(x, w * scale, c * scale, norm, backend, device)
        assert torch.equal(feasible, want[1])
        assert error(delta, want[0].double()).max() < 10 * TOLERANCE[dtype]


@every_norm
def test_largest_and_least_numbers(backend, device, norm):
    x = rows([0.5, 0.25, 0.75], [0.5, 0.25, 0.75], [0.5, 0.25, 0.75])
    w = rows([4.0, -2.0, 1.0]).repeat(3, 1) * torch.tensor([[1.0], [2.0**1020], [2.0**-1074]], dtype=torch.float64)
    c = rows(1.0, 1.0, 1.0) * torch.tensor([1.0, 2.0**1020, 2.0**-1074], dtype=torch.float64)
    delta, feasible = project(x, w, c, norm, backend, device)
    assert feasible.all() and torch.equal(delta[1], delta[0]) and torch.equal(delta[2], delta[0])
    check_optimal(x[:1], w[:1], c[:1], delta[:1], norm)


# ---- what the box allows


@every_dtype
@every_norm
def test_infeasible_rows_go_to_the_corner(backend, device, norm, dtype):
    x, w, c = sample(12, 35, dtype, seed=6)
    w[:, 3] = 0
    total = (w.double().abs() * room(x, w)).sum(1)
    for beyond in (total * (1 + 1e-9), total * 2, torch.full_like(total, inf)):
        delta, feasible = project(x, w, beyond, norm, backend, device)
        assert not feasible.any()
        same(delta, corner(x, w))


@every_dtype
@every_norm
@pytest.mark.parametrize("largest", [4.0, 3.0, 7.0])
def test_exactly_feasible_rows_go_to_the_corner_and_are_feasible(backend, device, norm, dtype, largest):
    # small multiples of powers of two: every sum is exact in every order
    g = torch.Generator().manual_seed(0)
    x = (torch.randint(0, 9, (50, 37), generator=g) / 8).to(dtype)
    w = torch.randint(-3, 4, (50, 37), generator=g).to(dtype)
    w[:, 5] = largest
    total = (w.double().abs() * room(x, w)).sum(1)
    delta, feasible = project(x, w, total, norm, backend, device)
    assert feasible.all()
    torch.testing.assert_close(delta, corner(x, w), rtol=1e-6 if dtype == torch.float32 else 1e-14, atol=0)
    beyond = torch.nextafter(total, torch.full_like(total, inf))
    delta, feasible = project(x, w, beyond, norm, backend, device)
    assert not feasible[total > 0].any()
    same(delta, corner(x, w))


@every_dtype
@every_norm
def test_nothing_to_reach_moves_nothing(backend, device, norm, dtype):
    x, w, _ = sample(5, 20, dtype)
    for c in (torch.zeros(5), torch.full((5,), -0.0), torch.full((5,), -3.0), torch.full((5,), -inf)):
        delta, feasible = project(x, w, c, norm, backend, device)
        assert feasible.all() and (delta == 0).all()


@every_dtype
@every_norm
@pytest.mark.parametrize("c", [-1.0, 0.0, 0.5, inf])
def test_faults_give_nan_and_leave_the_other_rows_alone(backend, device, norm, dtype, c):
    x, w, _ = sample(10, 18, dtype, seed=7)
    c = torch.full((10,), c, dtype=torch.float64)
    want = project(x, w, c, norm, backend, device)
    faulty = [1, 2, 3, 4, 5, 6, 8]
    x[1, 17], w[2, 0], w[3, 4], w[4, 17], c[5] = nan, nan, inf, -inf, nan
    x[6, 2] = torch.nextafter(torch.tensor(1.0, dtype=dtype), torch.tensor(2.0, dtype=dtype))
    x[8, 9] = -torch.finfo(dtype).tiny
    delta, feasible = project(x, w, c, norm, backend, device)
    assert delta[faulty].isnan().all() and not feasible[faulty].any()
    sound = [0, 7, 9]
    assert torch.equal(delta[sound], want[0][sound]) and torch.equal(feasible[sound], want[1][sound])


@every_norm
def test_an_infinite_x_is_out_of_the_box(backend, device, norm):
    x = rows([0.5, inf], [0.5, -inf])
    delta, feasible = project(x, rows([1.0, 1.0], [1.0, 1.0]), rows(0.1, 0.1), norm, backend, device)
    assert delta.isnan().all() and not feasible.any()


@every_dtype
@every_norm
def test_zero_weights_stay(backend, device, norm, dtype):
    x, w, _ = sample(6, 33, dtype, seed=8)
    w[:, ::3] = 0
    w[5] = 0
    c = 0.4 * (w.double().abs() * room(x, w)).sum(1)
    c[5] = 1e-300
    delta, feasible = project(x, w, c, norm, backend, device)
    assert (delta[:, ::3] == 0).all() and feasible.tolist() == [True] * 5 + [False] and (delta[5] == 0).all()
    assert error(delta[:5], truth(x, w, c, norm)[0][:5]).max() <= TOLERANCE[dtype]


@every_dtype
@every_norm
def test_coordinates_at_their_bound_stay(backend, device, norm, dtype):
    x, w, _ = sample(6, 33, dtype, seed=9)
    x[:, ::2] = (w[:, ::2] > 0).to(dtype)  # against the wall
    x[:, 1::4] = (w[:, 1::4] < 0).to(dtype)  # the whole box ahead
    c = 0.4 * (w.double().abs() * room(x, w)).sum(1)
    delta, feasible = project(x, w, c, norm, backend, device)
    assert feasible.all() and (delta[:, ::2] == 0).all()
    assert error(delta, truth(x, w, c, norm)[0]).max() <= TOLERANCE[dtype]


@every_dtype
def test_for_norm_one_equal_weights_move_in_the_order_of_their_index(backend, device, dtype):
    x = rows([0.5, 0.5, 0.5, 0.5, 0.5, 0.0], dtype=dtype)
    w = rows([1.0, 2.0, -2.0, 2.0, 1.0, -9.0], dtype=dtype)  # the last one has no room
    for c, want in ((0.5, [0, 0.25, 0, 0, 0, 0]), (1.0, [0, 0.5, 0, 0, 0, 0]), (1.5, [0, 0.5, -0.25, 0, 0, 0]),
                    (3.0, [0, 0.5, -0.5, 0.5, 0, 0]), (3.25, [0.25, 0.5, -0.5, 0.5, 0, 0]),
                    (3.75, [0.5, 0.5, -0.5, 0.5, 0.25, 0]), (4.0, [0.5, 0.5, -0.5, 0.5, 0.5, 0])):  # fmt: skip
        delta, feasible = project(x, w, rows(c), 1, backend, device)
        assert feasible.all()
        torch.testing.assert_close(delta, rows(want, dtype=dtype), rtol=0, atol=1e-15 if dtype == torch.float64 else 0)


def test_for_norm_one_a_row_of_equal_weights(backend, device):
    for dim in (16, 40):
        x, w = torch.full((1, dim), 0.5, dtype=torch.float64), torch.ones(1, dim, dtype=torch.float64)
        delta, _ = project(x, w, rows(3.25), 1, backend, device)
        same(delta, rows([0.5] * 6 + [0.25] + [0.0] * (dim - 7)))


# ---- shapes and layouts


@every_dtype
@every_norm
@pytest.mark.parametrize("batch, dim", [(0, 5), (0, 0), (3, 0)])
def test_nothing_to_do(backend, device, norm, dtype, batch, dim):
    c = torch.tensor([-1.0, 0.0, 1.0])[:batch]
    delta, feasible = project(
        torch.zeros(batch, dim, dtype=dtype), torch.zeros(batch, dim, dtype=dtype), c, norm, backend, device
    )
    assert delta.shape == (batch, dim) and feasible.tolist() == [True, True, False][:batch]


@every_dtype
@every_norm
def test_layout_does_not_matter(backend, device, norm, dtype):
    x, w, c = sample(10, 34, dtype, seed=10)
    want = project(x, w, c, norm, backend, device)

    def check(x, w, c, pick=slice(None)):
        delta, feasible = project(x, w, c, norm, backend, device)
        assert torch.equal(delta, want[0][pick]) and torch.equal(feasible, want[1][pick])

    check(x.t().contiguous().t(), w, c)
    check(x, w.t().contiguous().t(), torch.stack([c, -c], 1)[:, 0])
    check(x[::3], w[::3], c[::3], slice(None, None, 3))
    wide = torch.full((10, 68), nan, dtype=dtype)
    wide[:, ::2], wide[:, 1::2] = x, w
    check(wide[:, ::2], wide[:, 1::2], c)
    delta, _ = project(x[:1].expand(4, 34), w[:1].expand(4, 34), c[:1].expand(4), norm, backend, device)
    assert torch.equal(delta, want[0][:1].expand(4, 34))


@every_norm
def test_each_row_on_its_own(backend, device, norm):
    x, w, c = sample(7, 40, torch.float32, seed=11)
    delta, _ = project(x, w, c, norm, backend, device)
    for i in range(7):
        assert torch.equal(project(x[i : i + 1], w[i : i + 1], c[i : i + 1], norm, backend, device)[0][0], delta[i])


def test_c_may_be_of_either_dtype_and_norm_a_text(backend, device):
    x, w, c = sample(5, 10, torch.float32)
    c = c.float()
    for norm in NORMS:
        want = project(x, w, c.double(), norm, backend, device)
        for other in (project(x, w, c, norm, backend, device), project(x, w, c, str(norm), backend, device)):
            assert torch.equal(other[0], want[0])
    default = halfspace_box_projection(x.to(device), w.to(device), c.to(device), backend=backend)[0].cpu()
    assert torch.equal(default, project(x, w, c, 2, backend, device)[0])


def test_inputs_are_left_as_they_were(backend, device):
    tensors = [t.to(device) for t in sample(5, 10, torch.float64)]
    before = [t.clone() for t in tensors]
    halfspace_box_projection(*tensors, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


X, C = torch.full((3, 4), 0.5), torch.ones(3)


@pytest.mark.parametrize("x, w, c, keywords, error, message", [
    (X.half(), X, C, {}, TypeError, r"x: expected torch.float32 or torch.float64, got torch.float16"),
    (X.long(), X, C, {}, TypeError, r"x: .* got torch.int64"),
    (X.numpy(), X, C, {}, TypeError, r"x: expected a tensor, got ndarray"),
    (X[0], X, C, {}, ValueError, r"x: expected shape \[B, D\], got \[4\]"),
    (X[None], X, C, {}, ValueError, r"x: expected shape \[B, D\], got \[1, 3, 4\]"),
    (X, X.double(), C, {}, TypeError, r"w: expected torch.float32, got torch.float64"),
    (X, X[:2], C, {}, ValueError, r"w: expected shape \[3, 4\], got \[2, 4\]"),
    (X, X[:, :3], C, {}, ValueError, r"w: expected shape \[3, 4\], got \[3, 3\]"),
    (X, X.to("meta"), C, {}, ValueError, r"w: expected a tensor on cpu, got one on meta"),
    (X, X, C.half(), {}, TypeError, r"c: .* got torch.float16"),
    (X, X, 1.0, {}, TypeError, r"c: expected a tensor, got float"),
    (X, X, C[:2], {}, ValueError, r"c: expected shape \[3\], got \[2\]"),
    (X, X, C[:, None], {}, ValueError, r"c: expected shape \[3\], got \[3, 1\]"),
    (X, X, C.to("meta"), {}, ValueError, r"c: expected a tensor on cpu, got one on meta"),
    (X, X, C, {"norm": 3}, ValueError, r"norm: expected 1, 2 or inf, got 3"),
    (X, X, C, {"norm": nan}, ValueError, r"norm: .* got nan"),
    (X, X, C, {"norm": -inf}, ValueError, r"norm: .* got -inf"),
    (X, X, C, {"norm": "fro"}, ValueError, r"norm: .* got 'fro'"),
    (X, X, C, {"norm": None}, ValueError, r"norm: .* got None"),
    (X, X, C, {"lower": 1.0, "upper": 0.0}, ValueError, r"bounds: expected finite lower < upper, got \(1.0, 0.0\)"),
    (X, X, C, {"lower": 1.0}, ValueError, r"bounds: .* got \(1.0, 1.0\)"),
    (X, X, C, {"upper": 0.0}, ValueError, r"bounds: .* got \(0.0, 0.0\)"),
    (X, X, C, {"lower": nan}, ValueError, r"bounds: .* got \(nan, 1.0\)"),
    (X, X, C, {"lower": None}, TypeError, r"bounds: expected two numbers \(lower, upper\), got \(None, 1.0\)"),
    (X, X, C, {"backend": "fast"}, ValueError, r"backend: expected one of .* got 'fast'"),
])  # fmt: skip
def test_errors_name_the_argument_and_what_it_got(x, w, c, keywords, error, message):
    with pytest.raises(error, match=message):
        halfspace_box_projection(x, w, c, **keywords)
