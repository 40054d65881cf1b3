"""How often confidence intervals contain the truth, in 4,000 experiments each whose truth is known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstwo

import robustperf as rp
from robustperf import basic_robustness
from robustperf.nuisance import LinfBall
from robustperf.robustness import MarginCurve, label_preservation

RUNS = 4000
RADIUS = 0.2


def threshold(x):
    """Label 1 from grey 0.5 on."""
    return torch.stack([torch.zeros_like(x[:, 0, 0, 0]), x[:, 0, 0, 0] - 0.5], 1)


def deviations(confidence, count=RUNS):
    """Four standard deviations of the fraction of intervals that hold the truth."""
    return 4 * math.sqrt(confidence * (1 - confidence) / count)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("distance", [0.02, 0.1, 0.18])
@pytest.mark.parametrize("rule", [{}, {"width": 0.2}, {"until_disagreement": True}], ids=str)
def test_rho(confidence, distance, rule):
    """ρ of a threshold at `distance` from x under noise uniform in ± RADIUS; each run is a sample of its own."""
    truth = 0.5 + distance / (2 * RADIUS)
    x = torch.full((RUNS, 1, 1, 1), 0.5 + distance)
    settings = {"samples": 200, "confidence": confidence, "batch_size": 20_000, **rule}
    found = basic_robustness(threshold, x, LinfBall(RADIUS), **settings)
    held = ((found.lower <= truth) & (truth <= found.upper)).double().mean().item()
    assert held > confidence - deviations(confidence)
    if not rule:  # exactly, from the binomial distribution
        lower, upper = rp.robustness.clopper_pearson(torch.arange(201), torch.full((201,), 200), confidence)
        inside = ((lower <= truth) & (truth <= upper)).numpy()
        exact = binom.pmf(np.arange(201), 200, truth)[inside].sum()
        assert held == pytest.approx(exact, abs=deviations(exact))
        assert abs(found.rho.mean() - truth) < 4 * math.sqrt(truth * (1 - truth) / (RUNS * 200))


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("count", [10, 100])
def test_bands_of_margin_curves(confidence, count):
    """Margins uniform in [0, 1] have the curve 1 - eps; how often the band holds it everywhere is known exactly."""
    held = 0
    for margins in np.random.default_rng(2026).random((RUNS, count)):
        band = MarginCurve.from_margins(margins, 1.0).band(confidence)
        # a monotone truth leaves a step band first at a jump: just before it, or at it
        before = np.nextafter(margins, 0)
        held += bool((band.upper(margins) >= 1 - margins).all() and (band.lower(before) <= 1 - before).all())
    exact = kstwo.cdf(band.half_width, count)
    assert held / RUNS == pytest.approx(exact, abs=deviations(exact))
    assert held / RUNS > confidence - deviations(confidence)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_bands_of_the_area(confidence):
    """The area under the curve of uniform margins is 1/2."""
    held = 0
    for margins in np.random.default_rng(7).random((RUNS, 30)):
        lower, upper = MarginCurve.from_margins(margins, 1.0).band(confidence).area
        held += lower <= 0.5 <= upper
    assert held / RUNS > confidence - deviations(confidence)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_robust_accuracy(confidence):
    """The accuracy under attack of a threshold on points of a known distribution, whose margins are exact."""
    model = torch.nn.Linear(1, 2, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model.bias.copy_(torch.tensor([0.5, -0.5]))
    points, eps = 50, 0.1
    x = torch.rand(RUNS, points, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    margins = rp.margins(model, x.flatten(0, 1), labels=(x.flatten() > 0.5).long(), batch_size=10**6)
    robust = (margins.distance > eps).view(RUNS, points).sum(1)
    lower, upper = rp.robustness.clopper_pearson(robust, torch.full_like(robust, points), confidence)
    truth = 1 - 2 * eps
    held = ((lower <= truth) & (truth <= upper)).double().mean().item()
    assert held > confidence - deviations(confidence)
    one = margins.robust_accuracy(eps, confidence=confidence)
    assert abs(one.value - truth) < 4 * math.sqrt(truth * (1 - truth) / (RUNS * points))


def test_label_preservation():
    """Hoeffding's interval of the mean over points that are uniform in [0.3, 0.7], where eps is 1/4."""
    held, confidence = 0, 0.8
    x = 0.3 + 0.4 * torch.rand(RUNS // 10, 40, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    for run, points in enumerate(x):
        found = label_preservation(LinfBall(RADIUS), lambda images: threshold(images).argmax(1), points, samples=20,
                                   confidence=confidence, key=run, batch_size=10_000)  # fmt: skip
        held += found.lower <= 0.25 <= found.upper
    assert held / len(x) > confidence - deviations(confidence, len(x))
