"""Differences between two classifiers at the same points, with confidence intervals."""

from __future__ import annotations

import math

import torch

from robustperf.robustness import clopper_pearson
from robustperf.robustness.confidence import check_confidence

Interval = tuple[float, float, float]
"""(a value, the ends of its confidence interval)."""


def fraction_difference(first: torch.Tensor, second: torch.Tensor, confidence: float) -> Interval:
    """The fraction of true values in `second` [N] bool less that in `first` [N] bool, of the same points.

    It is the fraction of the points that only `second` gets less that of those which only `first` gets. Each has a
    Clopper-Pearson interval of 1 - (1 - confidence) / 2, so that both hold together, and so does the difference of
    their ends, whatever the fractions are.

    >>> fraction_difference(torch.tensor([True] * 99 + [False]), torch.tensor([True] * 100), 0.95)
    (0.01, -0.0428..., 0.0618...)
    """
    level, count = 1 - (1 - check_confidence(confidence)) / 2, torch.tensor(len(first))
    gained, lost = (second & ~first).sum(), (first & ~second).sum()
    (gained_low, gained_high), (lost_low, lost_high) = (clopper_pearson(hits, count, level) for hits in (gained, lost))
    value = (gained - lost).item() / len(first) if len(first) else math.nan
    return value, (gained_low - lost_high).item(), (gained_high - lost_low).item()


def mean_difference(first: torch.Tensor, second: torch.Tensor, confidence: float) -> Interval:
    """The mean of second - first, both [N] float64 and finite, with Student's t interval, NaN for N < 2."""
    from scipy.special import stdtrit

    tail = (1 - check_confidence(confidence)) / 2
    difference = second - first
    value, count = difference.mean().item(), len(difference)
    if count < 2:
        return value, math.nan, math.nan
    half = stdtrit(count - 1, 1 - tail) * difference.std().item() / math.sqrt(count)
    return value, value - half, value + half


def median_difference(first: torch.Tensor, second: torch.Tensor, confidence: float) -> Interval:
    """The median of second - first, both [N] float64, the lower of two middle ones; ∞ - ∞ counts as 0.

    The interval is that of the sign test: between the k-th least and the k-th largest difference, for the largest k
    with P(Binomial(N, 1/2) < k) <= (1 - confidence) / 2. It holds for every distribution; (-∞, ∞) where N is too small.
    """
    from scipy.special import bdtr

    tail = (1 - check_confidence(confidence)) / 2
    difference = (second - first).where(first != second, 0).sort().values
    count = len(difference)
    if not count:
        return math.nan, -math.inf, math.inf
    ranks = sum(bool(bdtr(below, count, 0.5) <= tail) for below in range((count + 1) // 2))
    lower, upper = (difference[ranks - 1].item(), difference[-ranks].item()) if ranks else (-math.inf, math.inf)
    return difference[(count - 1) // 2].item(), lower, upper
