"""Attacks that users write: the protocol of `run`, what `Problem` evaluates and counts, and the best point so far."""

import math
import re
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from robustperf import margins, ops
from robustperf.attacks import BG, FGSM, PGD, Attack, Nearest, Problem
from robustperf.attacks import attack as attack_module


class Flip(Attack):
    """Each point's x' is another point of the batch."""

    def run(self, problem):
        point = problem.x.flip(0)
        return point, problem.gap(point)


def problem_of(net, x, labels, **changes):
    return Problem(net.eval(), x, labels, **{"bounds": (0.0, 1.0), "key": 0, "index": torch.arange(len(x)), **changes})


def test_an_attack_of_ones_own(net, x, labels):
    attack = Flip()
    assert attack.name == "Flip" and BG().name == "BG"
    found = attack(net.train(), x, labels)
    assert torch.equal(found.point, x.flip(0)) and net.training
    net.eval()
    torch.testing.assert_close(found.gap, ops.logit_gap(net(x.flip(0)).detach(), labels), rtol=1e-9, atol=1e-12)
    assert found.evaluations.tolist() == [1] * 6 and found.backward.tolist() == [0] * 6 and not found.flat.any()
    with pytest.raises(NotImplementedError):
        Attack()(net, x, labels)


def test_the_documented_example_runs(net, x, labels):
    """The example of the module's docstring, as it stands there."""
    text = re.search(r"    @dataclass.*?            return point, gap\n", attack_module.__doc__, re.DOTALL).group()
    names = {"Attack": Attack, "dataclass": dataclass}
    exec(re.sub(r"^    ", "", text, flags=re.MULTILINE), names)
    attack = names["SignAscent"](step=0.1, steps=30)
    found = attack(net, x, labels)
    crossed = found.gap < 0
    assert crossed.any() and found.point.min() >= 0 and found.point.max() <= 1
    with torch.no_grad():
        assert torch.equal(net.eval()(found.point).argmax(1) != labels, crossed)
    assert (found.evaluations < 31).any()  # points that have crossed cost nothing more
    # one step is FGSM's
    single = names["SignAscent"](step=0.25, steps=1)(net, x, labels)
    assert torch.equal(single.point, FGSM(0.25)(net, x, labels).point)
    assert torch.equal(single.evaluations, torch.full_like(labels, 2))
    assert margins(net, x, attacks=["fgsm", attack]).attacks == ("FGSM", "SignAscent")


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_points_that_are_not_finite_are_replaced_by_x(net, x, labels, wrong):
    class Broken(Attack):
        def run(self, problem):
            point = problem.x.flip(0).clone()
            gap = problem.gap(point)
            point[2, 0, 1, 1] = wrong
            return point, gap

    found = Broken()(net, x, labels)
    assert torch.equal(found.point[2], x[2]) and found.gap[2].isnan()
    assert found.flat.nonzero().tolist() == [[2]]
    assert torch.equal(found.point[3:], x.flip(0)[3:]) and found.gap[3:].isfinite().all()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda p, g: (p + 1, g), ValueError, r"Mine: point: expected pixels within \[0, 1\], got 1\."),
        (lambda p, g: (p.float(), g), TypeError, "Mine: point: expected torch.float64, got torch.float32"),
        (lambda p, g: (p[:1], g), ValueError, r"Mine: point: expected shape \[6, 1, 5, 5\], got \[1, 1"),
        (lambda p, g: (p, g.float()), TypeError, "Mine: gap: expected torch.float64, got torch.float32"),
        (lambda p, g: (p, g[:2]), ValueError, r"Mine: gap: expected shape \[6\], got \[2\]"),
        (lambda p, g: p, TypeError, r"Mine: expected run to return \(point, gap\), got Tensor"),
        (lambda p, g: None, TypeError, r"Mine: expected run to return \(point, gap\), got NoneType"),
    ],
)
def test_wrong_results_of_run(net, x, labels, change, error, match):
    class Mine(Attack):
        def run(self, problem):
            return change(problem.x, problem.gap(problem.x))

    with pytest.raises(error, match=match):
        Mine()(net, x, labels)


def test_passes_are_counted_for_the_rows_they_are_spent_on(net, x, labels):
    problem, rows = problem_of(net, x, labels), torch.tensor([4, 1])
    assert problem.rows.tolist() == [0, 1, 2, 3, 4, 5] and problem.unknown().isnan().all()
    problem.gap(x)
    problem.logits(x[rows], rows)
    assert problem.evaluations.tolist() == [1, 2, 1, 1, 2, 1] and not problem.backward.any()
    problem.gradient(x)
    problem.gradient(x[rows], rows, "dlr")
    assert problem.evaluations.tolist() == [2, 4, 2, 2, 4, 2] and problem.backward.tolist() == [1, 2, 1, 1, 2, 1]
    logits, gradients = problem.logit_gradients(x[rows], rows)
    assert logits.shape == (2, 4) and gradients.shape == (2, 4, 25)
    assert problem.evaluations.tolist() == [2, 5, 2, 2, 5, 2] and problem.backward.tolist() == [1, 6, 1, 1, 6, 1]
    problem.gap(x[:0], rows[:0]), problem.gradient(x[:0], rows[:0])
    problem.count(rows, forward=10, backward=3)
    assert problem.evaluations[rows].tolist() == [15, 15] and problem.backward[rows].tolist() == [9, 9]


@pytest.mark.parametrize(
    ("attack", "backward"), [(FGSM(), 1), (PGD(steps=7), 7), (BG(), 4), (BG(steps=3), 12)], ids=repr
)
def test_backward_passes_of_the_attacks(net, x, labels, attack, backward):
    """One for the gradient of a loss, as many as classes for the gradients of all logits."""
    assert attack(net, x, labels).backward.tolist() == [backward] * 6


def test_rows_select_labels_and_mark_flat_gradients(net, x, labels):
    rows = torch.tensor([5, 0, 2])
    problem = problem_of(net, x, labels)
    gradient, gap = problem.gradient(x[rows], rows)
    every, gaps = problem_of(net, x, labels).gradient(x)
    torch.testing.assert_close(gradient, every[rows])
    torch.testing.assert_close(gap, gaps[rows])
    torch.testing.assert_close(problem.gap(x[rows], rows), gaps[rows])
    constant = nn.Sequential(nn.Flatten(), nn.Linear(25, 4)).double()
    nn.init.zeros_(constant[1].weight)
    problem = problem_of(constant, x, constant(x).argmax(1))
    problem.gradient(x[rows], rows)
    assert problem.flat.tolist() == [True, False, True, False, False, True]


def test_points_are_clamped_to_numbers_and_to_arrays(net, x, labels):
    assert problem_of(net, x, labels).clamp(x + 0.5).max() == 1
    upper = torch.full((1, 5, 5), 0.5, dtype=x.dtype)
    upper[0, 0, 0] = 0.25
    point = problem_of(net, x, labels, bounds=(torch.zeros_like(upper), upper)).clamp(x + 1)
    assert torch.equal(point, upper.expand_as(x))


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_nearest_keeps_the_nearest_crossing(net, x, labels, norm):
    """By hand: the smallest distance among the offers with a negative gap; the first offer until there is one."""
    generator = torch.Generator().manual_seed(3)
    offers = [torch.rand(x.shape, dtype=x.dtype, generator=generator) for _ in range(8)]
    gaps = [torch.randn(6, dtype=torch.float64, generator=generator) for _ in range(8)]
    for row in (2, 4):
        for gap in gaps:
            gap[row] = gap[row].abs()
    nearest = Nearest(problem_of(net, x, labels), norm)
    assert torch.equal(nearest.point, x) and nearest.gap.isnan().all()
    for point, gap in zip(offers, gaps, strict=True):
        nearest.offer(point, gap)
    for b in range(6):
        lengths = [
            (point[b] - x[b]).flatten().norm(norm).item() if gap[b] < 0 else math.inf
            for point, gap in zip(offers, gaps, strict=True)
        ]
        best = min(range(8), key=lengths.__getitem__)
        assert torch.equal(nearest.point[b], offers[best][b]) and nearest.gap[b] == gaps[best][b]
        assert nearest.distance[b].item() == pytest.approx(lengths[best])
    assert nearest.distance[[2, 4]].isinf().all() and torch.equal(nearest.point[2], offers[0][2])


def test_nearest_takes_offers_for_some_rows(net, x, labels):
    nearest, rows = Nearest(problem_of(net, x, labels), 2), torch.tensor([3, 1])
    crossing = torch.full((2,), -1.0, dtype=torch.float64)
    nearest.offer(x[rows] + 0.2, crossing, rows)
    nearest.offer(x[rows] + 0.1, crossing, rows)
    nearest.offer(x[rows] + 0.3, crossing - 1, rows)
    assert torch.equal(nearest.point[rows], x[rows] + 0.1) and torch.equal(nearest.point[[0, 2, 4, 5]], x[[0, 2, 4, 5]])
    torch.testing.assert_close(nearest.distance[rows], torch.full((2,), 0.5, dtype=torch.float64))
    assert nearest.gap.isnan().tolist() == [True, False, True, False, True, True]
    assert torch.equal(x, problem_of(net, x, labels).x)  # what was given is left as it was
