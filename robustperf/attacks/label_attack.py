"""The base of attacks that query labels only."""

from __future__ import annotations

import torch

from robustperf.attacks.attack import Attack
from robustperf.attacks.problem import Problem
from robustperf.attacks.queries import Queries


class LabelAttack(Attack):
    """An attack that needs labels only, for classifiers with and without gradients. A subclass has the fields `norm`
    and `queries` and writes `improve`."""

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
