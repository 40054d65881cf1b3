"""Paired intervals: known values, coverage in simulations, and what is invalid."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from robustperf.reports.paired import fraction_difference, mean_difference, median_difference

NUMBERS = np.random.default_rng(0)


def test_mean_difference_is_scipys():
    a, b = torch.from_numpy(NUMBERS.random((2, 30)))
    value, lower, upper = mean_difference(a, b, 0.9)
    scipys = stats.ttest_rel(b.numpy(), a.numpy()).confidence_interval(0.9)
    assert value == pytest.approx((b - a).mean().item())
    assert (lower, upper) == pytest.approx((scipys.low, scipys.high))
    value, *ends = mean_difference(a[:1], b[:1], 0.9)
    assert value == (b - a)[0] and np.isnan(ends).all()


@pytest.mark.parametrize("count", [1, 5, 6, 17, 40])
def test_median_difference_is_the_sign_tests(count):
    """The interval holds the shifts that an exact sign test does not reject, but for its open ends."""
    a, b = torch.from_numpy(NUMBERS.normal(size=(2, count)))
    value, lower, upper = median_difference(a, b, 0.95)
    difference = np.sort((b - a).numpy())
    assert value == difference[(count - 1) // 2]

    def kept(shift):
        return stats.binomtest(int((difference > shift).sum()), count).pvalue > 0.05

    for gap in np.convolve(difference, [0.5, 0.5], "valid"):  # between two differences
        assert kept(gap) == (lower < gap < upper)
    if count < 6:
        assert (lower, upper) == (-math.inf, math.inf)
    else:
        assert lower in difference and upper in difference


def test_medians_of_infinite_margins():
    infinite = torch.full((9,), math.inf, dtype=torch.float64)
    assert median_difference(infinite, infinite, 0.95) == (0, 0, 0)
    value, lower, upper = median_difference(torch.ones(9, dtype=torch.float64), infinite, 0.95)
    assert value == lower == upper == math.inf
    assert math.isnan(median_difference(infinite[:0], infinite[:0], 0.95)[0])


def test_fraction_difference():
    """10 of 100 points only the second gets, 2 only the first: the ends are those of two Clopper-Pearson intervals."""
    first, second = torch.zeros(2, 100, dtype=torch.bool)
    first[:50] = second[2:60] = True
    value, lower, upper = fraction_difference(first, second, 0.95)
    assert value == pytest.approx(0.08)
    gained, lost = (stats.binomtest(hits, 100).proportion_ci(0.975, "exact") for hits in (10, 2))
    assert (lower, upper) == pytest.approx((gained.low - lost.high, gained.high - lost.low))
    assert fraction_difference(first, first, 0.95)[0] == 0 and fraction_difference(first, first, 0.95)[2] > 0


def test_fraction_difference_covers():
    """Of 400 samples of 60 pairs at least 95 % cover the truth."""
    truth, covered = 0.15 - 0.05, 0
    for _ in range(400):
        drawn = torch.from_numpy(NUMBERS.random(60))
        first, second = drawn < 0.5, (drawn >= 0.05) & (drawn < 0.65)
        _, lower, upper = fraction_difference(first, second, 0.95)
        covered += lower <= truth <= upper
    assert covered >= 380


@pytest.mark.parametrize("difference", [fraction_difference, mean_difference, median_difference])
@pytest.mark.parametrize("confidence", [0, 1, math.nan])
def test_bad_confidence(difference, confidence):
    with pytest.raises(ValueError, match="confidence: expected"):
        difference(torch.ones(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool), confidence)
