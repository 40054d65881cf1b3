from __future__ import annotations

from dataclasses import dataclass

import torch

from robustperf import check, random
from robustperf.attacks.label_attack import LabelAttack
from robustperf.attacks.queries import Queries


@dataclass(frozen=True)
class CoordinateDescent(LabelAttack):
    """Moves the nearest point back towards x feature by feature, from labels only: for trees and rules.

    The regions of trees are boxes. Within the box of one leaf the nearest point to x is found feature by feature: each
    is set to its value in x, or, where the label would then be that of x, bisected. From the largest difference to the
    smallest; again until nothing changes. A pass takes up to D (1 + bisections) queries.

    Then points are drawn from the ball around x of the nearest one's distance, until one has another label, from which
    the passes begin again: with a few features a nearer leaf is found so.

    Args:
        norm: 1, 2 or inf, of the nearest point.
        queries: at most, for each point.
        bisections: of each feature's difference.
        draws: at a time, from the ball; 0 for none.

    >>> rule = rp.LabelOnly(lambda points: points.sum(1) > 1, classes=[False, True])
    >>> rp.margins(rule, torch.tensor([[0.6, 0.7], [0.2, 0.1]]), attacks=[CoordinateDescent(queries=50)])
    Margins(n=2, norm=2, median=0.212, not found=0, access=labels)
    """

    norm: float = 2
    queries: int = 1000
    bisections: int = 12
    draws: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", check.norm(self.norm))
        check.integer("queries", self.queries, 1)
        check.integer("bisections", self.bisections, 1)
        check.integer("draws", self.draws, 0)

    def improve(self, queries: Queries) -> None:
        rows, point, drawn = queries.active, queries.point.clone(), 0
        settled = torch.zeros_like(queries.used, dtype=torch.bool)
        while rows.numel():
            self._pass(queries, point, rows[~settled[rows]], settled)
            for _ in range(4 if self.draws else 0):
                self._draw(queries, point, queries.active[settled[queries.active]], settled, drawn)
                drawn += self.draws
            rows = queries.active
            rows = rows if self.draws else rows[~settled[rows]]

    def _pass(self, queries: Queries, point: torch.Tensor, rows: torch.Tensor, settled: torch.Tensor) -> None:
        """One pass over the features; sets `settled` for the rows that have not moved."""
        before = point[rows].clone()
        order = (before - queries.x[rows]).abs().argsort(dim=1, descending=True, stable=True)
        for feature in order.T:
            self._move_back(queries, point, rows, feature)
        settled[rows] = torch.isclose(point[rows], before, rtol=1e-6, atol=0.0).all(1)

    def _draw(
        self, queries: Queries, point: torch.Tensor, rows: torch.Tensor, settled: torch.Tensor, drawn: int
    ) -> None:
        """Queries draws from the ball of the nearest distance so far; a row for which one crosses goes on from it."""
        if not rows.numel():
            return
        index, dim = queries.problem.index[rows], queries.x.shape[1]
        number = torch.arange(drawn, drawn + self.draws, device=rows.device)
        u = random.uniform(random.fold_in(queries.problem.key, 1), index, number, dim + 1).to(queries.x.dtype)
        direction = 2 * u[..., :-1] - 1
        direction = direction / torch.linalg.vector_norm(direction, self.norm, dim=2, keepdim=True).clamp_min(1e-12)
        size = queries.distance[rows, None].to(u.dtype) * u[..., -1:] ** (1 / dim)
        before = queries.distance[rows]
        queries.each_crosses(queries.clamp(queries.x[rows] + size * direction), rows)
        some = rows[queries.distance[rows] < before]
        point[some], settled[some] = queries.point[some], False

    def _move_back(self, queries: Queries, point: torch.Tensor, rows: torch.Tensor, feature: torch.Tensor) -> None:
        """Moves the feature [M] of each row of `point` as far as its label stays another one."""
        home, there = queries.x[rows, feature], point[rows, feature]
        some = ((home != there) & (queries.used[rows] < queries.limit)).nonzero()[:, 0]
        low, high = torch.zeros_like(home), torch.ones_like(home)  # low does not cross, or is not known to
        for bisection in range(self.bisections + 1):
            if not some.numel():
                return
            middle = (low[some] + high[some]) / 2 if bisection else low[some]
            value = torch.where(middle == 0, home[some], home[some] + middle * (there[some] - home[some]))
            tried = point[rows[some]].scatter(1, feature[some, None], value[:, None])
            crossed = queries.crosses(tried, rows[some])
            point[rows[some[crossed]]] = tried[crossed]
            high[some] = torch.where(crossed, middle, high[some])
            low[some] = torch.where(crossed, low[some], middle)
            done = crossed & (middle == 0)
            some = some[~done & (queries.used[rows[some]] < queries.limit)]
