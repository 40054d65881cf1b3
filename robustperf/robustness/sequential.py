"""An unbiased estimate of a probability from trials with a stopping rule (Girshick, Mosteller and Savage 1946)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

_SPREAD = 10  # standard deviations of the hypergeometric distribution that are summed: the rest is below 1e-20
_AT_ONCE = 1 << 21  # probabilities in memory at a time


def unbiased(
    successes: torch.Tensor, trials: torch.Tensor, stages: Sequence[int], continues: Sequence[torch.Tensor]
) -> torch.Tensor:
    """E[first trial | when and with how many successes they stopped] [N] float64, whose mean is the probability itself
    whatever the rule (Rao and Blackwell); successes / trials where the rule could not stop earlier.

    Where n trials of which k succeed are exchangeable, the j successes among the first m of them are hypergeometric.
    So with m and n the trials at a stage and at the next, and u_m(j) the probability of not having stopped before m,

        u_n(k) = sum over j that continue at m of P(j | k, m, n) u_m(j),

    and for the first trial's success s_n(k) likewise, from s(k) = k / n at the first stage. The estimate is s / u.

    Args:
        successes, trials: [N] int64 on the CPU, each of `trials` one of `stages`.
        stages: the numbers of trials at which the rule may stop, ascending; at the last one it does.
        continues: [m + 1] bool for each stage m but the last, whether the rule continues after 0..m successes.
    """
    successes, trials, continues = successes.numpy(), trials.numpy(), [each.numpy() for each in continues]
    needed = [np.zeros(n + 1, bool) for n in stages]  # the counts of successes whose u and s are needed
    for at_stage, n in zip(needed, stages, strict=True):
        at_stage[successes[trials == n]] = True
    for place in range(len(stages) - 1, 0, -1):
        later = _window(np.flatnonzero(needed[place]), stages[place - 1], stages[place])
        for low, high in zip(*later, strict=True):
            needed[place - 1][low : high + 1] = True

    estimate = np.full(len(trials), math.nan)
    u, s = np.ones(stages[0] + 1), np.arange(stages[0] + 1) / stages[0]
    for place, n in enumerate(stages):
        if place:
            continued = continues[place - 1]
            u, s = _next(u * continued, s * continued, stages[place - 1], n, np.flatnonzero(needed[place]))
        stopped = trials == n
        k = successes[stopped]
        estimate[stopped] = np.divide(s[k], u[k], out=k / n, where=u[k] > 0)
    return torch.from_numpy(estimate)


def _next(u, s, m, n, counts):
    """u_n and s_n [n + 1] at the `counts` of successes, 0 elsewhere."""
    from scipy.special import gammaln

    found, factorials = np.zeros((2, n + 1)), gammaln(np.arange(n + 1) + 1.0)
    width = 2 * math.ceil(_SPREAD * math.sqrt(m * (n - m) / (4 * n)) + 1) + 1
    for some in np.array_split(counts, math.ceil(len(counts) * width / _AT_ONCE) or 1):
        low, _ = _window(some, m, n)
        j = low[:, None] + np.arange(width)
        k = some[:, None]
        there = (j <= m) & (j <= k) & (k - j <= n - m)
        j = j.clip(0, m)
        i = (k - j).clip(0, n - m)
        logs = _choose(factorials, m, j) + _choose(factorials, n - m, i) - _choose(factorials, n, k)
        probability = np.exp(np.where(there, logs, -math.inf))
        found[:, some] = (probability * u[j]).sum(1), (probability * s[j]).sum(1)
    return found


def _window(k, m, n):
    """(lowest, highest) counts of successes among the first m of n trials that are likely where k of the n succeed."""
    half = math.ceil(_SPREAD * math.sqrt(m * (n - m) / (4 * n)) + 1)
    middle = k * m // n
    return (middle - half).clip(0), (middle + half).clip(0, m)


def _choose(factorials, n, k):
    """log of n over k, from the logs of the factorials."""
    return factorials[n] - factorials[k] - factorials[n - k]
