"""The search for the largest weight of a regulariser that keeps the accuracy (T section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Result(Protocol):
    """What training with a weight gives.

    Attributes:
        accuracy: in percent.
    """

    accuracy: float


R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class WeightSearch(Generic[R]):
    """The weights that `search_weight` tried.

    Attributes:
        tried: the result of each weight, in ascending order of the weights.
        least: the accuracy to keep, in percent.
        kept: the largest weight tried below which, and at which, the accuracy is kept; None where none keeps it.
        lost: the next larger weight of the grid, whose accuracy is below `least`; None where none was tried.
    """

    tried: dict[float, R]
    least: float
    kept: float | None
    lost: float | None

    @property
    def chosen(self) -> float:
        """The weight `kept`; the one of the highest accuracy where no weight keeps it."""
        if self.kept is not None:
            return self.kept
        return max(self.tried, key=lambda weight: self.tried[weight].accuracy)

    @property
    def edge(self) -> str | None:
        """Which end of the weights tried the search ended at; None where it found where the accuracy falls."""
        if self.lost is None:
            return f"{max(self.tried):g} is the largest tried and keeps the accuracy"
        return f"{min(self.tried):g} is the smallest tried and loses the accuracy" if self.kept is None else None

    def matched(self, value: Callable[[R], float]) -> float | None:
        """The value at an accuracy of exactly `least`, linear in the accuracy between `kept` and `lost`; None at an
        edge."""
        if self.kept is None or self.lost is None:
            return None
        kept, lost = self.tried[self.kept], self.tried[self.lost]
        part = (kept.accuracy - self.least) / (kept.accuracy - lost.accuracy)
        return value(kept) + part * (value(lost) - value(kept))

    @property
    def matched_weight(self) -> float | None:
        """The weight at an accuracy of exactly `least`, interpolated as `matched` in its logarithm."""
        logarithms = {id(result): math.log(weight) for weight, result in self.tried.items()}
        found = self.matched(lambda result: logarithms[id(result)])
        return None if found is None else math.exp(found)


def search_weight(train: Callable[[float], R], start: float, least: float, trials: int) -> WeightSearch[R]:
    """Walks along the grid ..., 0.1, 0.3, 1, 3, 10, ... from `start`: upwards until a weight loses the accuracy, or
    downwards until one keeps it.

    Args:
        train: trains with a weight.
        start: the first weight, 1 or 3 times a power of ten.
        least: the accuracy to keep, in percent.
        trials: at most so many weights are tried; then the search ends at an edge.

    Raises ValueError for a start that is not on the grid, or trials < 1.
    """
    place = round(2 * math.log10(start)) if 0 < start < math.inf else 0
    if grid_weight(place) != start:
        raise ValueError(f"start: expected 1 or 3 times a power of ten, got {start}")
    if trials < 1:
        raise ValueError(f"trials: expected at least 1, got {trials}")
    tried = {start: train(start)}
    up = tried[start].accuracy >= least
    kept, lost = (start, None) if up else (None, start)
    while len(tried) < trials and (kept is None or lost is None):
        place += 1 if up else -1
        weight = grid_weight(place)
        tried[weight] = train(weight)
        if tried[weight].accuracy >= least:
            kept = weight
        else:
            lost = weight
    return WeightSearch(dict(sorted(tried.items())), least, kept, lost)


def grid_weight(place: int) -> float:
    """10^(place / 2) to one digit: 1, 3, 10, 30, ... from place 0 on."""
    return float(f"{10 ** (place / 2):.0e}")
