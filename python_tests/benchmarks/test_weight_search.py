"""`benchmarks.paper.weight_search`: the largest weight that keeps the accuracy, on accuracies known in closed form."""

import math
from dataclasses import dataclass

import pytest

from benchmarks.paper.weight_search import grid_weight, search_weight


@dataclass
class Trained:
    """A result whose accuracy falls by 2 points for each decade of the weight, and whose robustness grows by 0.5."""

    weight: float

    @property
    def accuracy(self):
        return 96 - 2 * math.log10(self.weight)

    @property
    def robustness(self):
        return 1 + 0.5 * math.log10(self.weight)


def test_the_grid_has_two_weights_in_a_decade():
    assert [grid_weight(place) for place in range(-4, 5)] == [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100]


@pytest.mark.parametrize("start, order", [
    (0.01, [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30]),
    (10, [10, 30]),
    (30, [30, 10]),
    (1000, [1000, 300, 100, 30, 10]),
])  # fmt: skip
def test_the_search_ends_where_the_accuracy_falls_from_any_start(start, order):
    called = []
    search = search_weight(lambda weight: called.append(weight) or Trained(weight), start, least=93.5, trials=9)
    # 96 - 2 log10(w) >= 93.5 up to w = 10^1.25 = 17.8
    assert called == order and list(search.tried) == sorted(order)
    assert (search.kept, search.lost, search.chosen, search.edge) == (10, 30, 10, None)


@pytest.mark.parametrize("start, trials, kept, lost, chosen, edge", [
    (0.1, 3, 1, None, 1, "1 is the largest tried and keeps the accuracy"),
    (300, 2, None, 100, 100, "100 is the smallest tried and loses the accuracy"),
    (10, 1, 10, None, 10, "10 is the largest tried and keeps the accuracy"),
])  # fmt: skip
def test_an_edge_of_the_grid_is_named_and_nothing_is_matched_there(start, trials, kept, lost, chosen, edge):
    search = search_weight(Trained, start, least=93.5, trials=trials)
    assert len(search.tried) == trials
    assert (search.kept, search.lost, search.chosen, search.edge) == (kept, lost, chosen, edge)
    assert search.matched(lambda result: result.robustness) is None and search.matched_weight is None


def test_of_weights_that_all_lose_the_accuracy_the_most_accurate_is_chosen():
    class Bumpy(Trained):
        accuracy = property(lambda self: {100: 50.0, 30: 80.0, 10: 70.0}[self.weight])

    search = search_weight(Bumpy, 100, least=90, trials=3)
    assert search.chosen == 30 and "10 is the smallest tried" in search.edge


@pytest.mark.parametrize("start", [0.1, 300])
def test_values_at_the_same_accuracy(start):
    search = search_weight(Trained, start, least=93.5, trials=9)
    assert search.matched(lambda result: result.accuracy) == pytest.approx(93.5)
    assert search.matched(lambda result: result.robustness) == pytest.approx(1 + 0.5 * 1.25)
    assert search.matched_weight == pytest.approx(10**1.25)


@pytest.mark.parametrize("start", [0, -1, 0.2, math.inf, math.nan])
def test_a_start_beside_the_grid(start):
    with pytest.raises(ValueError, match="start: expected 1 or 3 times a power of ten"):
        search_weight(Trained, start, least=90, trials=3)


def test_no_trials():
    with pytest.raises(ValueError, match="trials: expected at least 1, got 0"):
        search_weight(Trained, 1, least=90, trials=0)
