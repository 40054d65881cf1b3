"""Margins of classifiers that give labels only: attacks that query labels, within one budget."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from robustperf import check, random
from robustperf.attacks import CoordinateDescent, HopSkipJump, LabelAttack, Problem, SurFree
from robustperf.attacks.named import Attacks, attacks_of
from robustperf.attacks.queries import Queries
from robustperf.check import Box
from robustperf.classifier import evaluating
from robustperf.label_only import LabelOnly
from robustperf.ops.draws import check_key
from robustperf.robustness.boundary import Boundary
from robustperf.robustness.diagnostics import Diagnostics
from robustperf.robustness.margin_result import Margins, attack_names, checked_points, diameter
from robustperf.robustness.reevaluation import reevaluate
from robustperf.robustness.search import TOL

QUERIES = 1000
"""The default budget of a point."""

LEAST = 10
"""The smallest one."""

_OTHERS = 1024  # the points of x that others start from
_REPEATED = 2  # queries of the diagnostics
_STEPS = 32  # of the curve over queries


@dataclass(frozen=True)
class LabelSearch:
    """The settings of `margins` for a `LabelOnly` model; `stream` yields the margins batch by batch.

    By default `SurFree` has 60 % of the budget in the norm 2, whose circles it uses, and 20 % in others. `HopSkipJump`
    has the rest, without the last quarter of the budget if that gives `CoordinateDescent` four queries for each
    feature: on a forest of 30 features margins became 0.44 (norm 1) and 0.76 (norm 2) of those without it. Each starts
    from the best point so far. The last queries bisect the segment to it to the tolerance.
    """

    model: LabelOnly
    attacks: Attacks | None = None
    norm: float = 2
    bounds: Box = (0.0, 1.0)
    key: int = 0
    batch_size: int = 256
    keep_points: bool = False
    tol: float = TOL
    queries: int | None = None
    starts: torch.Tensor | None = None
    ensemble: tuple[LabelAttack, ...] = field(init=False)
    _start_labels: list[torch.Tensor] = field(init=False, repr=False, default_factory=list)  # queried once

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", check.norm(self.norm, zero=True))
        if self.norm == 0:
            raise ValueError("norm: expected 1, 2 or inf for a model that gives labels only, got 0")
        check_key(self.key)
        check.integer("batch_size", self.batch_size, 1)
        check.number("tol", self.tol, above=0, below=1)
        if self.queries is not None:
            check.integer("queries", self.queries, LEAST)
        ensemble = () if self.attacks is None else tuple(attacks_of(self.attacks, self.norm))
        for attack in ensemble:
            if not isinstance(attack, LabelAttack):
                raise ValueError(
                    "attacks: expected ones that need labels only (surfree, hopskipjump, coordinates) for a model that "
                    f"gives labels only, got {attack.name}"
                )
        object.__setattr__(self, "ensemble", ensemble)

    def stream(
        self, x: torch.Tensor, *, labels: torch.Tensor | None = None, index: torch.Tensor | None = None
    ) -> Iterator[Margins]:
        """As `MarginSearch.stream`; the labels of all points are queried first."""
        x, index, box = checked_points(x, labels, index, self.bounds)
        with evaluating(self.model):
            predicted = self._labels(x)
            if labels is not None:
                check.labels("labels", labels, self.model.count, synchronise=True)
            pools = [(x[:_OTHERS], predicted[:_OTHERS])]
            if self.starts is not None:
                starts = check.tensor("starts", self.starts, ("M", *x.shape[1:])).to(x.device, x.dtype)
                starts = check.images("starts", starts, box)
                if not self._start_labels:
                    self._start_labels.append(self._labels(starts))
                pools.insert(0, (starts, self._start_labels[0]))
            for first in range(0, max(len(x), 1), self.batch_size):
                part = slice(first, first + self.batch_size)
                wanted = predicted[part] if labels is None else labels[part]
                problem = Problem(self.model, x[part], wanted, bounds=box, key=self.key, index=index[part])
                yield self._batch(problem, predicted[part], pools, labels is not None)

    def _labels(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.model.labels(part) for part in x.split(self.batch_size) if len(part)]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=x.device)

    def _plan(self, dim: int) -> tuple[list[tuple[LabelAttack, int]], int]:
        """(each attack with the number of queries that a point may have used after it, the whole budget)."""
        final = math.ceil(-math.log2(self.tol))
        ensemble = self.ensemble
        own = [1 + total for total in np.cumsum([attack.queries for attack in ensemble], dtype=int).tolist()]
        budget = self.queries
        if budget is None:
            budget = own[-1] + final + _REPEATED if own else QUERIES
        last = budget - _REPEATED - min(final, budget // 10)
        if ensemble:
            return [(attack, min(limit, last)) for attack, limit in zip(ensemble, own, strict=True)], budget
        attacks = [SurFree(self.norm), HopSkipJump(self.norm)]
        fractions = [0.6 if self.norm == 2 else 0.2, 1.0]
        if 4 * dim <= 0.25 * last:
            attacks, fractions = [*attacks, CoordinateDescent(self.norm)], [fractions[0], 0.75, 1.0]
        limits = [1 + int(fraction * (last - 1)) for fraction in fractions]
        return list(zip(attacks, limits, strict=True)), budget

    def _batch(
        self,
        problem: Problem,
        predicted: torch.Tensor,
        pools: list[tuple[torch.Tensor, torch.Tensor]],
        labelled: bool,
    ) -> Margins:
        x, labels, count = problem.x, problem.labels, len(problem.x)
        plan, budget = self._plan(x[:1].numel() if count else 1)
        names = attack_names([attack for attack, _ in plan])
        grid = np.unique(np.geomspace(1, budget, _STEPS).round().astype(np.int64))
        queries = Queries(problem, self.norm, plan[0][1], used=1, grid=torch.as_tensor(grid, device=x.device))
        wrong = predicted != labels
        queries.distance[wrong], queries.curve[wrong] = 0.0, 0.0
        candidate = torch.where(wrong, -1, 0)
        evaluations = []
        for pool in pools:
            self._start(queries, *pool)
        for place, (attack, limit) in enumerate(plan):
            made, before = problem.evaluations.clone(), queries.distance.clone()
            queries.limit, problem.key = limit, random.fold_in(self.key, place)
            queries.draw_starts()
            attack.improve(queries)
            candidate[queries.distance < before] = place
            evaluations.append(problem.evaluations - made)
        made = problem.evaluations.clone()
        queries.limit = budget - _REPEATED
        rows = queries.active
        queries.to_boundary(queries.point[rows], rows, self.tol)
        found = queries.distance.isfinite()
        point = queries.point.masked_fill(~found[:, None], math.nan).view_as(x)
        candidate = candidate.where(found, -1)
        boundary = Boundary(queries.distance, point, candidate, 1 + problem.evaluations - made)
        counts = Diagnostics(points=count, flat=dict.fromkeys(names, 0), missing=int((~found).sum()))
        with torch.no_grad():
            counts, further = reevaluate(self.model, x, labels, problem.index, boundary, {}, self.norm, counts)
        return Margins(
            distance=boundary.distance.cpu(),
            attack=candidate.cpu(),
            evaluations=(boundary.evaluations + further).cpu(),
            found=found.cpu(),
            point=point.cpu() if self.keep_points else None,
            attack_evaluations=torch.stack(evaluations).cpu(),
            attacks=names,
            norm=self.norm,
            diameter=diameter(x.shape[1:], self.norm, problem.bounds),
            diagnostics=counts,
            labelled=labelled,
            access="labels",
            curve=queries.curve.cpu(),
            queries=tuple(grid.tolist()),
        )

    def _start(self, queries: Queries, pool: torch.Tensor, label: torch.Tensor) -> None:
        """Starts the rows that have no point yet at the nearest of the pool with another label."""
        rows = queries.distance.isinf().nonzero()[:, 0]
        if not rows.numel() or not len(pool):
            return
        pool = pool.flatten(1)
        mode = "donot_use_mm_for_euclid_dist"  # whose rounding depends on the batch
        distance = torch.cdist(queries.x[rows], pool, p=self.norm, compute_mode=mode)
        distance = distance.masked_fill(label == queries.problem.labels[rows, None], math.inf)
        nearest, place = distance.min(1)
        some = nearest.isfinite()
        queries.start(pool[place[some]], rows[some])
