"""Confidence intervals of a probability from independent trials."""

from __future__ import annotations

import math

import torch

from robustperf import check


def clopper_pearson(
    successes: torch.Tensor, trials: torch.Tensor, confidence: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(lower, upper) float64, an interval that covers the probability of success with probability >= `confidence`,
    whatever it is (Clopper and Pearson 1934: quantiles of two beta distributions); (0, 1) without trials.

    Args:
        successes, trials: int64 of one shape, 0 <= successes <= trials; the number of trials was fixed beforehand.
        confidence: strictly between 0 and 1.

    Raises TypeError for a wrong dtype, ValueError for a wrong count, shape or device.

    >>> clopper_pearson(torch.tensor([10]), torch.tensor([10]), 0.95)
    (tensor([0.6915], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    from scipy.special import betaincinv  # its import takes as long as this package's

    check.tensor("trials", trials, dtypes=(torch.int64,))
    check.tensor("successes", successes, tuple(trials.shape), dtypes=(torch.int64,), device=trials.device)
    if not ((successes >= 0) & (successes <= trials)).all():
        raise ValueError("successes: expected counts in 0..trials, got others")
    tail = (1 - check_confidence(confidence)) / 2
    k, n = successes.double().cpu().numpy(), trials.double().cpu().numpy()
    # a beta distribution has no parameter 0: those ends are set below
    lower, upper = betaincinv(k.clip(1), n - k + 1, tail), betaincinv(k + 1, (n - k).clip(1), 1 - tail)
    lower, upper = (torch.as_tensor(end, device=trials.device) for end in (lower, upper))
    return torch.where(successes == 0, 0.0, lower), torch.where(successes == trials, 1.0, upper)


def hoeffding(values: torch.Tensor, confidence: float) -> tuple[float, float]:
    """(lower, upper), an interval that covers the mean of a population in [0, 1] with probability >= `confidence`, from
    independent `values` [N] of it: their mean ± `half_width`, clipped to [0, 1] (Hoeffding 1963)."""
    mean, half = values.mean().item(), half_width(len(values), confidence)
    return max(0.0, mean - half), min(1.0, mean + half)


def half_width(count: int, confidence: float) -> float:
    """sqrt(log(2 / (1 - confidence)) / (2 N)) for N independent points: the half width of Hoeffding's interval for a
    mean in [0, 1], and of the Dvoretzky-Kiefer-Wolfowitz band of a distribution function with Massart's constant.

    Raises ValueError unless 0 < confidence < 1.
    """
    return math.sqrt(math.log(2 / (1 - check_confidence(confidence))) / (2 * count))


def check_confidence(value: float) -> float:
    """`value` as a float; ValueError unless it is a number strictly between 0 and 1."""
    return float(check.number("confidence", value, above=0, below=1))
