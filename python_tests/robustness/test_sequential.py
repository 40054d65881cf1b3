"""The unbiased estimate after a stopping rule: against all paths, its mean over the exact distribution of
the rule, and the estimates of `basic_robustness` with `width=`."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import beta, binom

from robustperf import basic_robustness, random
from robustperf.nuisance import LinfBall
from robustperf.robustness.basic_robustness import interim_stages
from robustperf.robustness.sequential import unbiased


def test_against_all_paths_of_a_short_plan():
    """Of the sequences that stop with so many trials and successes, the fraction that begins with a success."""
    stages, continues = [3, 5, 8], [[False, True, True, False], [False, True, False, True, True, False]]
    paths = {}
    for sequence in product((0, 1), repeat=8):
        for place, n in enumerate(stages):
            k = sum(sequence[:n])
            if place == 2 or not continues[place][k]:
                paths.setdefault((n, k), set()).add(sequence[:n])
                break
    ends = sorted(paths)
    found = unbiased(
        torch.tensor([k for _, k in ends]),
        torch.tensor([n for n, _ in ends]),
        stages,
        [torch.tensor(each) for each in continues],
    )
    expected = [sum(path[0] for path in paths[end]) / len(paths[end]) for end in ends]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    assert any(abs(value - k / n) > 0.01 for value, (n, k) in zip(expected, ends, strict=True))


def plan(samples, width, confidence):
    """(stages, whether the interval is wider than `width`, the intervals), by beta quantiles."""
    stages = interim_stages(samples, width, confidence)
    tail, intervals = (1 - confidence) / len(stages) / 2, {}
    for n in stages:
        k = np.arange(n + 1)
        intervals[n] = beta.ppf(tail, k, n - k + 1), beta.ppf(1 - tail, k + 1, n - k)
        intervals[n][0][0], intervals[n][1][-1] = 0, 1
    return stages, [intervals[n][1] - intervals[n][0] > width for n in stages[:-1]], intervals


def law(p, stages, continues):
    """(trials, successes, probability) of each place where the rule stops."""
    ends, alive, before = [], np.ones(1), 0
    for place, n in enumerate(stages):
        here = np.convolve(alive, binom.pmf(np.arange(n - before + 1), n - before, p))
        stop = ~continues[place] if place < len(continues) else np.ones(n + 1, bool)
        ends += [(n, k, here[k]) for k in np.flatnonzero(stop & (here > 0))]
        alive, before = np.where(stop, 0, here), n
    return [np.array(each) for each in zip(*ends, strict=True)]


@pytest.mark.parametrize("samples, width, confidence", [(1000, 0.1, 0.95), (200, 0.2, 0.9), (1500, 0.05, 0.99)])
def test_its_mean_is_the_probability(samples, width, confidence):
    stages, continues, intervals = plan(samples, width, confidence)
    tables, biased = [torch.from_numpy(each) for each in continues], 0
    for p in (0.003, 0.04, 0.11, 0.5, 0.83, 0.95, 0.99, 1.0):
        trials, successes, probability = law(p, stages, continues)
        assert probability.sum() == pytest.approx(1, abs=1e-12)
        found = unbiased(torch.from_numpy(successes), torch.from_numpy(trials), stages, tables).numpy()
        assert (probability * found).sum() == pytest.approx(p, abs=1e-12)
        lower, upper = (
            np.array([intervals[n][end][k] for n, k in zip(trials, successes, strict=True)]) for end in (0, 1)
        )
        assert (probability * found.clip(lower, upper)).sum() == pytest.approx(p, abs=1e-5)
        biased = max(biased, abs((probability * successes / trials).sum() - p))
        root = [np.sqrt((probability * (each - p) ** 2).sum()) for each in (found, successes / trials)]
        assert p > 0.98 or p < 0.02 or root[0] < 1.25 * root[1]
        if p == 1:
            assert (found == 1).all()
    assert biased > 0.001  # what the fraction itself is off by


def test_many_trials():
    """The sums are taken over windows, not over rows of 100,000."""
    stages, n = [20_000, 50_000, 100_000], 100_000
    continues = [torch.ones(20_001, dtype=torch.bool), torch.ones(50_001, dtype=torch.bool)]
    k = torch.tensor([0, 1, 777, 50_000, 99_999, n])
    torch.testing.assert_close(unbiased(k, torch.full((6,), n), stages, continues), k.double() / n, rtol=1e-9, atol=0)
    continues[1][25_000:] = False
    found = unbiased(torch.tensor([49_990]), torch.tensor([n]), stages, continues).item()
    assert found < 49_990 / n - 1e-3  # only those below one half went on


def threshold(x):
    return torch.stack([torch.zeros_like(x[:, 0, 0, 0]), x[:, 0, 0, 0] - 0.5], 1)


def test_the_estimates_of_points_are_unbiased():
    """3,000 points whose rho is 0.95: with the fraction itself the mean is 0.0046 higher, 14 standard errors."""
    x, ball = torch.full((3000, 1, 1, 1), 0.5 + 0.9 * 0.25), LinfBall(0.25)
    found = basic_robustness(threshold, x, ball, samples=1000, width=0.1, key=random.key(5), batch_size=60_000)
    error = found.rho.std().item() / 3000**0.5
    assert abs(found.rho.mean().item() - 0.95) < 4 * error < 0.0015
    assert (found.agreed / found.draws).mean().item() - 0.95 > 0.003
    assert ((found.lower <= found.rho) & (found.rho <= found.upper)).all()
    one = basic_robustness(threshold, x[:500], LinfBall(0.25), samples=64, key=1, batch_size=60_000)
    assert torch.equal(one.rho, one.agreed / one.draws.double())
