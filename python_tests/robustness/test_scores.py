"""Scores where they are known in closed form, against plain loops, postulate P1, and bad input."""

import math
from itertools import product

import pytest
import torch
from scipy.integrate import quad
from torch import nn

import robustperf as rp
from robustperf import Score, random
from robustperf.nuisance import Brightness, Compose, L2Ball, LabelAware, LinfBall, OnManifold, ball_family

SHAPE = (1, 1, 1)
X = torch.rand(9, 1, 4, 5, generator=torch.Generator().manual_seed(0))


def threshold(x):
    """Label 1 from grey 0.5 on."""
    return torch.stack([torch.zeros_like(x[:, 0, 0, 0]), x[:, 0, 0, 0] - 0.5], 1)


def rho(x, eps):
    """Of `threshold` under noise uniform in ± eps."""
    return 0.5 + min(abs(x - 0.5), eps) / (2 * eps)


def near(found, truth, deviations=5):
    return abs(found.value - truth) < deviations * found.standard_error


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(20, 9), nn.Tanh(), nn.Linear(9, 4))
    nn.init.zeros_(net[-1].bias)
    return net


def test_the_integral_over_the_cube():
    found = Score(LinfBall(0.3))(threshold, shape=SHAPE, points=4000, samples=100, batch_size=40_000)
    assert near(found, quad(rho, 0, 1, args=(0.3,))[0]) and 0 < found.standard_error < 0.01
    assert found.points.shape == (4000,) and found.points.mean().item() == found.value == found.area
    assert found.lam.shape == (0, 0) and found.at.shape == (0,) and found.draws == 400_000


def test_the_integral_with_weights():
    def cubic(x):
        return 4 * x[:, 0, 0, 0] ** 3

    found = Score(LinfBall(0.3), G=cubic)(threshold, shape=SHAPE, points=4000, samples=100, batch_size=4000)
    assert near(found, quad(lambda x: rho(x, 0.3) * 4 * x**3, 0, 1)[0])
    assert found.standard_error < 0.03


def test_the_average_margin_of_uniform_points():
    """T Example 2: the distance from x to 0.5, on average 1/4."""
    for d in (0.5, 2.0):
        score = Score(ball_family(d, "inf"), H="certain", nodes=24)
        found = score(threshold, shape=SHAPE, points=400, samples=100, batch_size=10_000)
        assert found.area == pytest.approx(0.25, abs=0.02)
        assert found.area == pytest.approx(d * found.value, rel=1e-12)  # the density is 1 / d
        assert found.draws < 0.6 * 24 * 400 * 100  # it stops at the first disagreement
        curve = rp.MarginCurve.from_margins(
            (random.uniform(random.fold_in(0, 0x706F696E), torch.arange(400), 1, 1).flatten() - 0.5).abs(), upper=d
        )
        assert found.area == pytest.approx(curve.area, abs=0.01)
        # the margin curve itself (T Example 3)
        assert (found.at - curve.at(found.lam[:, 0])).abs().max() < 0.03


def test_the_integral_over_data(net):
    family, index = rp.Family(L2Ball, (0.2, 3)), torch.arange(9) + 4
    functions = {"identity": lambda r: r, "certain": lambda r: float(r == 1), torch.square: lambda r: r**2}
    for h, function in functions.items():
        score = Score(family, H=h, G="empirical", nodes=3)
        found = score(net, X, samples=30, key=7, index=index)
        total = torch.zeros(9, dtype=torch.float64)
        for number, (node, weight) in enumerate(zip([-math.sqrt(0.6), 0, math.sqrt(0.6)], [5, 8, 5], strict=True)):
            kernel = L2Ball(1.6 + 1.4 * node)
            fractions = rp.basic_robustness(net, X, kernel, samples=30, key=random.fold_in(7, number), index=index).rho
            values = torch.tensor([function(r) for r in fractions.tolist()], dtype=torch.float64)
            assert found.at[number].item() == pytest.approx(values.mean().item())
            total += weight / 18 * values
        torch.testing.assert_close(found.points, total)
        assert found.value == pytest.approx(total.mean().item()) and found.area == pytest.approx(2.8 * found.value)
        assert 0 < found.value < 1
        assert found.standard_error == pytest.approx(total.std().item() / 3)
        assert found.lam[1].item() == pytest.approx(1.6)


def test_a_density_weights_the_family():
    rising = rp.Family(LinfBall, (0.1, 0.3), density=lambda lam: 25 * lam[:, 0])
    found = Score(rising, nodes=6)(threshold, shape=SHAPE, points=1000, samples=20, batch_size=20_000)
    # R of one radius is 1 - eps / 2
    assert near(found, quad(lambda eps: (1 - eps / 2) * 25 * eps, 0.1, 0.3)[0])
    assert found.area == pytest.approx(quad(lambda eps: 1 - eps / 2, 0.1, 0.3)[0], abs=0.01)


def test_several_variables_are_drawn():
    family = rp.Family(lambda eps, shift: Compose([Brightness((shift - 1e-6, shift)), LinfBall(eps)]), (0.1, 0.3),
                       (0, 1e-3), density=lambda lam: 5e6 * lam[:, 1] * 2)  # fmt: skip
    found = Score(family, nodes=64)(threshold, shape=SHAPE, points=500, samples=20, batch_size=500)
    assert found.lam.shape == (64, 2) and near(found, 0.9) and found.standard_error < 0.02


def test_too_few_draws_of_several_variables():
    def family(density=None):
        return rp.Family(lambda a, b: LinfBall(0.01 + a + b), (0, 1), (0, 1), density=density)

    def corner(lam):
        return 16 * (lam < 0.25).all(1).double()

    data = {"shape": SHAPE, "points": 50, "samples": 20, "batch_size": 10_000}
    lam = family().draws(32, random.fold_in(0, 0x6C616D62))
    hits = int((corner(lam) > 0).sum())
    assert 0 < hits < 8
    with pytest.raises(
        ValueError,
        match=f"nodes: expected enough of them for the density, got 32, by which its "
        f"integral is {hits / 2:g} and {hits} of them count",
    ):
        Score(family(corner))(threshold, **data)
    with pytest.raises(ValueError, match="got 1, by which its integral is 0 and 0 of them count"):
        Score(family(lambda lam: corner(1 - lam)), nodes=1)(threshold, **data)
    found = Score(family(corner), nodes=400)(threshold, **data | {"points": 400})
    assert near(found, 1 - 0.26 / 2) and found.standard_error < 0.02
    assert Score(family(), nodes=2)(threshold, **data).standard_error > 0
    single = Score(family(), nodes=1)(threshold, **data)
    assert 0 < single.value < 1 and math.isnan(single.standard_error)


@pytest.mark.parametrize("h", ["identity", "certain"])
def test_a_score_is_at_most_one(h):
    score = Score(ball_family(1.7), h, G="empirical", nodes=7)
    found = score(lambda x: torch.eye(2)[0].expand(len(x), 2), X, samples=3)
    assert found.value == 1 and (found.points == 1).all()
    assert 0 <= rp.robustness.accuracy_bound(0.9, 0, 1 - found.value) <= 1


def test_the_label_is_kept_by_a_label_aware_kernel():
    labeller = Score(LabelAware(LinfBall(0.3), lambda x: threshold(x).argmax(1)), H="certain")
    assert labeller(threshold, shape=SHAPE, points=200, samples=20, batch_size=200).value == 1


HS = {"identity": "identity", "certain": "certain", "step": lambda r: (r > 0.7).double() * 3, "exp": torch.exp}
GS = {"uniform": "uniform", "empirical": "empirical", "weights": lambda x: x.mean((1, 2, 3)) ** 2}
QS = {
    "ball": L2Ball(1.5),
    "family": ball_family(4),
    "two variables": rp.Family(lambda lower, eps: Compose([Brightness((lower, 1)), L2Ball(eps)]), (-1, 0), (0.5, 2)),
    "program": Compose([Brightness(0.9), LinfBall(0.3, clamp=True)]),
    "label-aware": LabelAware(L2Ball(1.5), lambda x: torch.zeros(len(x), dtype=torch.int64)),
    "on-manifold": OnManifold(torch.rand(50, 1, 4, 5, generator=torch.Generator().manual_seed(1)), 4.5),
}


@pytest.mark.parametrize("h, g, q", list(product(HS, GS, QS)))
def test_a_constant_classifier_has_the_largest_score(net, h, g, q):
    """T postulate P1."""
    score = Score(QS[q], H=HS[h], G=GS[g], nodes=4)

    def score_of(model):
        data = {"x": X} if g == "empirical" else {"shape": (1, 4, 5), "points": 30}
        return score(model, **data, samples=20)

    def constant(x):
        return torch.eye(4)[2].expand(len(x), 4)

    best = score_of(constant)
    (largest,) = score._h(torch.ones(1, dtype=torch.float64)).tolist()
    if g != "weights":
        assert best.value == pytest.approx(largest) and best.standard_error == pytest.approx(0, abs=1e-12)
    found = score_of(net)
    assert (found.points <= best.points * (1 + 1e-12)).all() and found.value < best.value


def test_points_without_a_kernel():
    found = Score(OnManifold(X[1:], 1.0), G="empirical")(nn.Flatten(), X, samples=3)
    there = OnManifold(X[1:], 1.0).defined(X)
    assert torch.equal(found.points.isnan(), ~there) and not there.all()
    assert math.isnan(found.value) and math.isnan(found.standard_error)
    for h in ("certain", torch.exp):
        assert torch.equal(
            Score(OnManifold(X[1:], 1.0), h, "empirical")(nn.Flatten(), X, samples=3).points.isnan(), ~there
        )


def test_batches_have_no_effect_and_the_model_is_left_unchanged(net):
    score = Score(ball_family(3), G="uniform", nodes=3)
    together = score(net.double().train(), shape=(1, 4, 5), points=20, samples=15)
    assert net.training
    other = score(net, shape=(1, 4, 5), points=20, samples=15, batch_size=3)
    assert torch.equal(together.points, other.points) and together.value == other.value
    assert score(net, shape=(1, 4, 5), points=20, samples=15, key=1).value != together.value


@pytest.mark.parametrize("h, error", [
    (lambda r: 1 - r, "an increasing function, got 1 at 0 and 0.99"),
    (lambda r: (r < 0.3).double(), "an increasing function, got 1 at 0.29"),
    (lambda r: r - 0.1, "finite numbers >= 0, got -0.1"),
    (lambda r: r.log(), "finite numbers >= 0, got -inf"),
    (lambda r: r * math.nan, "finite numbers >= 0, got nan"),
    (lambda r: r[:-1], r"values of shape \[1025\], got \[1024\]"),
    (lambda r: 1.0, r"values of shape \[1025\], got \[\]"),
])  # fmt: skip
def test_invalid_h(h, error):
    with pytest.raises(ValueError, match=f"H: expected {error}"):
        Score(L2Ball(1), H=h)


def test_h_is_checked_at_the_fractions_that_occur(net):
    def dip(r):
        return r.where((r - 1 / 3).abs() > 1e-6, 0)

    score = Score(L2Ball(1), H=dip, G="empirical")
    with pytest.raises(ValueError, match="H: expected an increasing function, got 0.266667 at 0.266667 and 0 at 0.3"):
        score(net, X, samples=15)


def test_errors(net):
    data = {"shape": (1, 4, 5), "points": 4, "samples": 3}
    for g, error in (
        (lambda x: x.mean((1, 2, 3)) - 5, "finite numbers >= 0, got -"),
        (lambda x: x.mean((1, 2, 3)) * math.inf, "finite numbers >= 0, got inf"),
        (lambda x: x, r"values of shape \[4\], got \[4, 1, 4, 5\]"),
    ):
        with pytest.raises(ValueError, match=f"G: expected {error}"):
            Score(L2Ball(1), G=g)(net, **data)
    with pytest.raises(TypeError, match="kernel: expected a Kernel or a Family, got int"):
        Score(1)
    for wrong in ("mean", 3, None):
        with pytest.raises(ValueError, match="H: expected identity, certain or a function, got"):
            Score(L2Ball(1), H=wrong)
        with pytest.raises(ValueError, match="G: expected uniform, empirical or a function, got"):
            Score(L2Ball(1), G=wrong)
    with pytest.raises(ValueError, match="nodes: expected an integer above 0"):
        Score(L2Ball(1), nodes=0)
    with pytest.raises(ValueError, match="x: expected the data .* where G is empirical, got None"):
        Score(L2Ball(1), G="empirical")(net)
    with pytest.raises(ValueError, match=r"x: expected at least one image, got shape \[0, 1, 4, 5\]"):
        Score(L2Ball(1), G="empirical")(net, X[:0])
    for g in ("empirical", "uniform"):
        with pytest.raises(ValueError, match="(shape|points|x): expected"):
            Score(L2Ball(1), G=g)(net, X, shape=(1, 4, 5), points=3)
    with pytest.raises(ValueError, match="index: expected None, for points of the unit cube are drawn"):
        Score(L2Ball(1))(net, **data, index=torch.arange(4))
    with pytest.raises(ValueError, match=r"shape: expected \(C, H, W\) above 0, got None"):
        Score(L2Ball(1))(net)
    for name in ("points", "samples"):
        with pytest.raises(ValueError, match=f"{name}: expected an integer above 0"):
            Score(L2Ball(1))(net, **(data | {name: 0}))
    peak = rp.Family(L2Ball, (0.1, 1.1), density=lambda lam: torch.where(lam[:, 0] < 0.15, 20.0, 0.0))
    with pytest.raises(ValueError, match="nodes: expected enough of them for the density, got 4, by which its int"):
        Score(peak, nodes=4)(net, **data)
