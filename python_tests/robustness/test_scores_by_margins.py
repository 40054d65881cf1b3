"""Scores of H = certain over norm balls from margins (T equations 6 and 7), where margins are known in closed form; and
balls that reach outside the unit cube."""

import math

import pytest
import torch
from torch import nn

import robustperf as rp
from robustperf import Score, random
from robustperf.attacks import BG
from robustperf.nuisance import (
    Brightness,
    Compose,
    GaussianNoise,
    L1Ball,
    L2Ball,
    LinfBall,
    OnManifold,
    ball_family,
)

NORMS = {1: (L1Ball, math.inf), 2: (L2Ball, 2), math.inf: (LinfBall, 1)}  # each with its dual norm
every_norm = pytest.mark.parametrize("norm", NORMS)
X = 0.4 + 0.2 * torch.rand(60, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Linear(nn.Module):
    """Label 1 where <w, x - 1/2> > 0. From these x the boundary is nearer than the cube's faces."""

    def __init__(self):
        super().__init__()
        w = torch.randn(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        self.w = nn.Parameter(w + 0.5 * w.sign())

    def score(self, x):
        return (x.flatten(1) - 0.5) @ self.w

    def forward(self, x):
        return torch.stack([torch.zeros_like(self.score(x)), self.score(x)], 1)

    def margin(self, x, norm):
        return self.score(x).abs() / torch.linalg.vector_norm(self.w, NORMS[norm][1])


@pytest.fixture
def linear():
    return Linear()


@every_norm
def test_the_average_margin_of_a_linear_model(linear, norm):
    truth = linear.margin(X, norm).detach()
    assert truth.max() < 0.4  # the box is further away than any boundary
    for d in (0.02, 0.05, 12.0):
        score = Score(ball_family(d, norm), H="certain", G="empirical", nodes=9, certain="margins")
        found = score(linear, X)
        assert found.area == pytest.approx(truth.clamp(max=d).mean().item(), rel=1e-5)
        assert found.value == pytest.approx(found.area / d, rel=1e-12) and found.draws == 0
        torch.testing.assert_close(found.points, truth.clamp(max=d) / d, rtol=1e-5, atol=1e-9)
        assert found.standard_error == pytest.approx((truth.clamp(max=d) / d).std().item() / math.sqrt(60), rel=1e-4)
        curve = rp.MarginCurve.from_margins(truth, upper=d)
        torch.testing.assert_close(found.at, curve.at(found.lam[:, 0]), atol=1.01 / 60, rtol=0)


@every_norm
def test_the_area_is_that_of_the_margin_curve(linear, norm):
    score = Score(ball_family(0.4, norm), H="certain", G="empirical", certain="margins")
    found = score(linear, X, attacks=[BG(norm)], key=3)
    margins = rp.margins(linear, X, attacks=[BG(norm)], norm=norm, key=3)
    assert found.area == pytest.approx(rp.MarginCurve.from_margins(margins, upper=0.4).area, rel=1e-12)
    assert torch.equal(found.at, rp.MarginCurve.from_margins(margins, upper=0.4).at(found.lam[:, 0]))


def test_points_of_the_cube_and_weights(linear):
    """T Example 2: G = 1, or a function, on uniform points of the cube."""
    score = Score(ball_family(2.0, 2), H="certain", certain="margins")
    found = score(linear, shape=(1, 3, 4), points=50, key=5)
    x = random.uniform(random.fold_in(5, 0x706F696E), torch.arange(50), 1, 12)[0].view(50, 1, 3, 4).double()
    margins = rp.margins(linear, x, attacks=[rp.attacks.FGSM(), rp.attacks.PGD(2), BG(2)], norm=2, key=5)
    assert found.area == pytest.approx(margins.distance.clamp(max=2).mean().item(), rel=1e-12)
    weighted = Score(ball_family(2.0, 2), H="certain", G=lambda x: 3 * x.mean((1, 2, 3)), certain="margins")
    expected = (margins.distance.clamp(max=2) * 3 * x.mean((1, 2, 3))).mean().item()
    assert weighted(linear, shape=(1, 3, 4), points=50, key=5).area == pytest.approx(expected, rel=1e-12)


@every_norm
def test_a_single_ball(linear, norm):
    """T equation 6: the fraction of points without another label in the ball."""
    truth = linear.margin(X, norm).detach()
    eps = truth.sort().values[20:22].mean().item()
    for kernel in (NORMS[norm][0](eps, clamp=True), Compose([NORMS[norm][0](eps, clamp=True)])):
        found = Score(kernel, H="certain", G="empirical", certain="margins")(linear, X)
        assert found.value == found.area == pytest.approx(39 / 60) and found.lam.shape == (0, 0)
        assert torch.equal(found.points, (truth > eps).double())


def test_other_families_are_integrated_by_their_nodes(linear):
    truth = linear.margin(X, 2).detach()
    for family in (
        rp.Family(lambda r: L2Ball(r, clamp=True), (0.01, 0.2), density=lambda lam: lam[:, 0] / 0.01995),
        rp.Family(lambda r: L2Ball(2 * r, clamp=True), (0.01, 0.1)),
    ):
        found = Score(family, H="certain", G="empirical", nodes=200, certain="margins")(linear, X)
        radii = torch.tensor([family.at(lam).ball[1] for lam in found.lam], dtype=torch.float64)
        torch.testing.assert_close(found.at, (truth > radii[:, None]).double().mean(1), atol=1.01 / 60, rtol=0)
        grid = torch.linspace(0.01, family.upper.item(), 20001, dtype=torch.float64)[:, None]
        inside = torch.stack([(truth > family.at(lam).ball[1]).double().mean() for lam in grid])
        average = torch.trapezoid(inside * family.density_at(grid), grid[:, 0])
        assert found.value == pytest.approx(average.item(), abs=0.005)


# balls that reach outside the unit cube


def constant_in_the_cube(x):
    """Another label as soon as a value leaves [0, 1]."""
    outside = ((x < 0) | (x > 1)).flatten(1).any(1).to(x.dtype)
    return torch.stack([0 * x.flatten(1).sum(1), outside - 0.5], 1)


@pytest.mark.parametrize("norm", NORMS)
def test_a_classifier_that_is_constant_in_the_cube_has_the_largest_score_there(norm):
    """T postulate P1; balls as printed, which reach outside the cube, do not satisfy it."""
    data = {"shape": (1, 2, 2), "points": 100, "samples": 50}
    for certain in ("draws", "margins"):
        found = Score(ball_family(2.0, norm), H="certain", nodes=8, certain=certain)(constant_in_the_cube, **data)
        assert found.value == pytest.approx(1, rel=1e-12) and found.area == pytest.approx(2, rel=1e-12)
    outside = Score(ball_family(2.0, norm, clamp=False), H="certain", nodes=8)(constant_in_the_cube, **data)
    assert outside.value < 0.7


@pytest.mark.parametrize("norm", NORMS)
def test_clamped_balls_reach_the_whole_ball_within_the_cube_and_nothing_else(norm):
    x = torch.tensor([0.1, 0.95]).view(1, 1, 1, 2)
    drawn = NORMS[norm][0](0.3, clamp=True).draw(x, key=0, index=torch.arange(1), draws=4000)[:, 0].flatten(1).double()
    assert drawn.min() >= 0 and drawn.max() <= 1
    distance = torch.linalg.vector_norm(drawn - x.flatten().double(), float(norm), dim=1)
    assert distance.max() <= 0.3 * (1 + 1e-5)
    grid = torch.cartesian_prod(torch.linspace(0, 0.4, 21), torch.linspace(0.65, 1, 21)).double()
    within = grid[torch.linalg.vector_norm(grid - x.flatten().double(), float(norm), dim=1) <= 0.29]
    assert torch.cdist(within, drawn).min(1).values.max() < 0.06


def test_which_kernels_are_balls():
    assert L2Ball(2, clamp=True).ball == (2.0, 2.0) and LinfBall(0.5, clamp=True).ball == (math.inf, 0.5)
    assert L1Ball(3, clamp=True).ball == (1.0, 3.0)
    for kernel in (
        L2Ball(2),
        LinfBall(0.5),
        L1Ball(3),
        GaussianNoise(),
        Brightness(),
        OnManifold(X, 1.0),
        Compose([L2Ball(1, clamp=True), Brightness()]),
        Compose([L2Ball(1, clamp=True)] * 2),
    ):
        assert kernel.ball is None
    assert ball_family(1.0).at(torch.tensor([0.5])).ball == (2.0, 0.5)
    assert ball_family(1.0, clamp=False).at(torch.tensor([0.5])).ball is None


def test_errors(linear):
    margins = {"H": "certain", "G": "empirical", "certain": "margins"}
    with pytest.raises(ValueError, match="certain: expected one of draws, margins, got 'attacks'"):
        Score(L2Ball(1), certain="attacks")
    for h in ("identity", torch.square):
        with pytest.raises(ValueError, match="certain: expected draws where H is not certain, got margins beside H="):
            Score(ball_family(1.0), H=h, certain="margins")
    two = rp.Family(lambda r: (L2Ball if r < 0.5 else LinfBall)(r, clamp=True), (0.1, 1))
    for kernel in (
        L2Ball(1),
        Brightness(),
        ball_family(1.0, clamp=False),
        two,
        rp.Family(lambda a, b: Compose([Brightness((-a, 0)), L2Ball(b, clamp=True)]), (0.1, 1), (0.1, 1)),
    ):
        with pytest.raises(ValueError, match=r"kernel: expected norm balls of one norm within the unit cube"):
            Score(kernel, **margins)(linear, X)
    with pytest.raises(ValueError, match="attacks: expected None where certain is draws"):
        Score(ball_family(1.0), H="certain", G="empirical")(linear, X, attacks=[BG()])
    with pytest.raises(ValueError, match="attacks: expected at least one, got none"):
        Score(ball_family(1.0), **margins)(linear, X, attacks=[])


@pytest.mark.parametrize("kernel", [ball_family(1.0), L2Ball(0.01, clamp=True)], ids=["family", "ball"])
def test_a_point_without_a_label_has_no_score(linear, kernel):
    wrong = X[3, 0, 0, 0]
    found = Score(kernel, H="certain", G="empirical", certain="margins")
    with pytest.warns(RuntimeWarning, match="NaN logits"):
        found = found(lambda x: linear(x).masked_fill(x[:, 0, 0, :1] == wrong, math.nan), X)
    assert math.isnan(found.value) and math.isnan(found.area)
    assert found.points.isnan().nonzero()[:, 0].tolist() == [3] and found.at.isnan().all()
