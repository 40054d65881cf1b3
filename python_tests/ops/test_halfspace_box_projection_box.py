"""What the box allows: corners, faults and ties; the scale of w; shapes, layouts and errors."""

import pytest
import torch

from python_tests.support.projection import (
    NORMS,
    TOLERANCE,
    check_optimal,
    error,
    every_dtype,
    every_norm,
    inf,
    nan,
    project,
    room,
    rows,
    sample,
    truth,
)
from robustperf.ops import halfspace_box_projection

OP = "halfspace_box_projection"


def same(got, want):
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


def corner(x, w, lower=0.0, upper=1.0):
    return (w.double().sign() * room(x, w, lower, upper)).to(x.dtype)


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
