"""Confidence intervals against sums of binomial probabilities."""

import math

import pytest
import torch

from robustperf.robustness import clopper_pearson
from robustperf.robustness.confidence import hoeffding


def binomial(k, n, p):
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_clopper_pearson_cuts_off_equal_tails(n, confidence):
    lower, upper = clopper_pearson(torch.arange(n + 1), torch.full((n + 1,), n), confidence)
    assert lower.dtype == upper.dtype == torch.float64
    tail = (1 - confidence) / 2
    for k in range(n + 1):
        p = lower[k].item()
        if k == 0:
            assert p == 0
        else:
            assert sum(binomial(j, n, p) for j in range(k, n + 1)) == pytest.approx(tail, rel=1e-9)
        p = upper[k].item()
        if k == n:
            assert p == 1
        else:
            assert sum(binomial(j, n, p) for j in range(k + 1)) == pytest.approx(tail, rel=1e-9)


def test_the_truth_is_held_often_enough():
    n, confidence = 25, 0.9
    lower, upper = clopper_pearson(torch.arange(n + 1), torch.full((n + 1,), n), confidence)
    for p in torch.linspace(0, 1, 201, dtype=torch.float64).tolist():
        held = sum(binomial(k, n, p) for k in range(n + 1) if lower[k] <= p <= upper[k])
        assert held >= confidence


def test_no_trials_and_shapes():
    zeros = torch.zeros(2, 3, dtype=torch.int64)
    lower, upper = clopper_pearson(zeros, zeros, 0.95)
    assert torch.equal(lower, torch.zeros(2, 3).double()) and torch.equal(upper, torch.ones(2, 3).double())
    assert clopper_pearson(zeros[:, :0], zeros[:, :0], 0.95)[0].shape == (2, 0)


def test_hoeffding():
    values = torch.tensor([0.5, 0.7, 0.6, 0.6], dtype=torch.float64).repeat(100)
    lower, upper = hoeffding(values, 0.9)
    half = math.sqrt(math.log(20) / 800)
    assert lower == pytest.approx(0.6 - half) and upper == pytest.approx(0.6 + half)
    assert hoeffding(values[:1], 0.9) == (0, 1)


def test_errors():
    k, n = torch.tensor([1]), torch.tensor([2])
    for confidence in (0, 1, -1, math.nan, "0.5", True, None):
        with pytest.raises(ValueError, match=r"confidence: expected a number in \(0, 1\), got"):
            clopper_pearson(k, n, confidence)
    for wrong in (torch.tensor([3]), torch.tensor([-1]), torch.tensor([1, 1])):
        with pytest.raises(ValueError, match="successes: expected"):
            clopper_pearson(wrong, n, 0.5)
    with pytest.raises(TypeError, match="trials: expected"):
        clopper_pearson(k, n.double(), 0.5)
    with pytest.raises(TypeError, match="successes: expected"):
        clopper_pearson(k.double(), n, 0.5)
