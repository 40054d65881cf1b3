"""The smallest step into a halfspace within the box: the reference by other solvers, every backend by the reference."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from python_tests.support.projection import (
    DTYPES,
    NORMS,
    TOLERANCE,
    check_optimal,
    error,
    every_dtype,
    every_norm,
    inf,
    least_norm,
    project,
    room,
    rows,
    sample,
    truth,
)

OP = "halfspace_box_projection"

UNIT = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}


# ---- the reference is right, by other people's solvers


@every_norm
@pytest.mark.parametrize("dim", [1, 2, 3, 7])
def test_reference_against_scipy(norm, dim):
    x, w, c = sample(12, dim, torch.float64, seed=dim)
    delta, feasible = truth(x, w, c, norm)
    assert feasible.all()
    check_optimal(x, w, c, delta, norm)
    for i in range(12):
        size, place = least_norm(w[i].numpy(), c[i].item(), -x[i].numpy(), 1 - x[i].numpy(), norm)
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
    x, w, c = sample(16, dim, dtype, seed=dim)
    c[:4] = torch.tensor([0.0, -1.0, 1e6, inf])
    delta, feasible = project(x, w, c, norm, backend, device)
    want, can = truth(x, w, c, norm)
    assert torch.equal(feasible, can) and feasible.sum() == 14
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
