"""The base of attacks that query labels only."""

from __future__ import annotations

import torch

from robustperf.attacks.attack import Attack
from robustperf.attacks.problem import Problem
from robustperf.attacks.queries import Queries


class LabelAttack(Attack):
    """An attack that needs labels only, for classifiers with and without gradients. A subclass has the fields `norm`
    and `queries` and writes `improve`.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Halving(LabelAttack):
    ...     norm: float = 2
    ...     queries: int = 20
    ...     def improve(self, queries):
    ...         for _ in range(10):  # halves the distance while the label stays another one
    ...             rows = queries.active
    ...             queries.crosses((queries.x[rows] + queries.point[rows]) / 2, rows)  # keeps it where it crosses
    >>> rule = rp.LabelOnly(lambda points: points.sum(1) > 1, classes=[False, True])
    >>> rp.margins(rule, torch.tensor([[0.6, 0.7], [0.2, 0.1]]), attacks=[Halving()])
    Margins(n=2, norm=2, median=0.216, not found=0, access=labels)
    """

    norm: float
    queries: int

    def improve(self, queries: Queries) -> None:
        """Searches nearer points from the best ones so far, for the rows that have one, until the limit."""
        raise NotImplementedError

    def run(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        """From the nearest point of earlier attacks, or else a draw of the box with another label; for a `LabelOnly`,
        `margins` also starts from other points."""
        queries = Queries(problem, self.norm, self.queries)
        if problem.best is not None:
            rows = (problem.best.gap < 0).nonzero()[:, 0]
            queries.start(problem.best.point.flatten(1)[rows], rows)
        queries.draw_starts()
        self.improve(queries)
        # labels tell no more of the gap than its sign
        gap = torch.where(queries.distance.isfinite(), -1.0, 1.0).double()
        return queries.point.view_as(problem.x), gap
