"""Cases of `robustperf bench`: the interval of a median, contenders that fail, and what the cases cover."""

import pytest
import torch
from scipy.stats import binom

from benchmarks.common import cases
from benchmarks.common.cases import OURS, Case, Ratio, measure, median_with_interval
from benchmarks.speed import all_cases
from benchmarks.speed.margins import eager_attacks
from robustperf import ops

# what no group has in its name -> the group whose cases call it
WITHIN = {"line_search_step": "line_search", "nuisance_draw": "nuisance"}


@pytest.mark.parametrize("count", range(6, 22))
def test_the_interval_is_the_closest_pair_that_covers_the_median(count):
    found = median_with_interval(torch.randperm(count).tolist())
    outside = int(found.low)
    assert found == Ratio((count - 1) / 2, outside, count - 1 - outside)
    # the median lies outside of it if at most `outside` of the values, or all but as many, are below it
    assert 2 * binom.cdf(outside, count, 0.5) <= 0.05 < 2 * binom.cdf(outside + 1, count, 0.5)


def test_few_values_give_their_range():
    assert median_with_interval([3.0, 1.0, 2.0]) == Ratio(2.0, 1.0, 3.0)
    assert median_with_interval([3.0]) == Ratio(3.0, 3.0, 3.0)


def test_contenders_take_turns_and_ratios_are_of_one_turn(monkeypatch):
    """A machine that becomes eight times slower from turn to turn changes no ratio."""
    speed = iter(8.0**power for power in range(-3, 20))
    now = {}

    def batch_seconds(calls, device, sleep=0.0):
        if calls[0] is ours:
            now["speed"] = next(speed)
        return now["speed"] * calls[0]()

    def ours():
        return 1.0

    monkeypatch.setattr(cases, "batch_seconds", batch_seconds)
    monkeypatch.setattr(cases, "batch_of", lambda calls, device, most: calls)
    row = measure(Case("group, a", lambda: {OURS: ours, "eager": lambda: 3.0, "peer": lambda: 0.5}), seconds=0)
    assert row.turns == 7 and row.failed == {} and row.case == "group, a"
    assert row.faster == {"eager": Ratio(3.0, 3.0, 3.0), "peer": Ratio(0.5, 0.5, 0.5)}
    assert row.ms["eager"] == 3 * row.ms[OURS]


def test_a_contender_that_fails_is_named_and_left_out():
    def fails():
        raise RuntimeError("no compiler\nsecond line")

    row = measure(Case("group, a", lambda: {OURS: int, "eager": int, "compiled": fails}), seconds=0)
    assert set(row.faster) == {"eager"} and set(row.ms) == {OURS, "eager"}
    assert row.failed == {"compiled": "RuntimeError: no compiler second line"}


@pytest.mark.parametrize("where", ["make", "call"])
def test_without_ours_a_case_has_no_times(where):
    def fails():
        raise ValueError("x: expected a float")

    make = fails if where == "make" else lambda: {OURS: fails, "eager": int}
    row = measure(Case("group, a", make), seconds=0)
    assert row.failed == {OURS: "ValueError: x: expected a float"} and row.ms == row.faster == {}


@pytest.mark.parametrize("quick", [True, False])
def test_cases_have_names_of_their_own_and_cover_every_operation(quick):
    groups = all_cases.groups(quick)
    names = [case.name for each in groups.values() for case in each]
    assert len(set(names)) == len(names)
    measured = {WITHIN.get(op, op) for op in ops.__all__ if op != "preferring"}
    assert measured <= set(groups) and set(WITHIN.values()) <= set(groups)
    jobs = {"margins", "training", "learned", "svm", "basic_robustness", "autoencoder", "mnist_c", "hein"}
    assert jobs <= set(groups) and "nuisance backward" in groups


def test_groups_are_chosen_by_name():
    cases, curves = all_cases.chosen(["best_of_k", "scale"], quick=True)
    assert {all_cases.group_of(case.name) for case in cases} == {"best_of_k"} and curves
    assert all_cases.chosen([], quick=True)[1] is False and all_cases.chosen([], quick=False)[1] is True
    with pytest.raises(ValueError, match="names: expected one of halfspace_box_projection.*did you mean 'margins'"):
        all_cases.chosen(["margin"], quick=True)


def test_the_attacks_in_plain_pytorch_are_within_their_budgets():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 3))
    x = torch.rand(5, 1, 3, 3)
    fast, point, linear = eager_attacks(model, x)
    for each in (fast, point, linear):
        assert each.shape == x.shape and each.min() >= 0 and each.max() <= 1 and not each.requires_grad
    assert (fast - x).abs().max() <= 0.25 + 1e-6
    assert (point - x).flatten(1).norm(dim=1).max() <= 3 + 1e-5
    # of a linear model the linearisation crosses wherever the box does not cut it off
    with torch.no_grad():
        inside = ((linear > 0) & (linear < 1)).flatten(1).all(1)
        assert inside.any() and (model(linear).argmax(1) != model(x).argmax(1))[inside].all()
