"""The search for the fewest changed values: the counterpart in L0 of the search on lines."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from robustperf import check, ops
from robustperf.check import Box
from robustperf.classifier import Classifier, evaluating, logits_of
from robustperf.robustness.boundary import Boundary

UNDOING = 64
"""The most evaluations of a point in which changes are undone, after those of the bisections."""


@dataclass(frozen=True)
class SupportSearch:
    """A search for the point that changes the fewest values of x on the way back from candidates.

    A line to a candidate says nothing in L0, where every point on it changes the same values. Instead changes are
    undone, the smallest first, in units of the box (of 1 where it has no width). Candidates are taken from the one with
    the fewest changes on. The first is evaluated as it is, each later one with one change less than the best point so
    far, and dropped if it does not cross there. The number of changes kept is bisected. At last the changes of the
    best point are undone one by one, or in groups that double in size as long as that succeeds, where the label stays
    another one. Every point kept has been evaluated, and none has more changes than the candidate that it comes from.

    Args:
        model: the classifier.
        box: the bounds, as `check.box` returns them.
    """

    model: Classifier
    box: Box

    def nearest(
        self, x: torch.Tensor, candidates: torch.Tensor, labels: torch.Tensor, gaps: tuple[torch.Tensor, torch.Tensor]
    ) -> Boundary:
        """The best points from x [B, ...] towards candidates [A, B, ...], of x's dtype, for the labels [B] int64.

        gaps: (`ops.logit_gap` at x [B], at the candidates [A, B], NaN where unknown). Candidates with a gap that is not
        negative are left out.
        """
        search = _Undoing(self.model, x, labels, self.box, gaps[0] < 0)
        ends = candidates.flatten(2)
        count = (ends != search.x).sum(2)
        usable = ~(gaps[1] >= 0) & (count > 0) & ~search.misclassified
        order = count.masked_fill(~usable, search.x.shape[1] + 1).argsort(dim=0, stable=True)
        with evaluating(self.model), torch.no_grad():
            for place in order:
                rows = usable.gather(0, place[None])[0].nonzero()[:, 0]
                search.keep_fewest(ends[place[rows], rows], rows, place[rows])
            search.undo()
        return Boundary(search.distance, search.point.view_as(x), search.candidate, search.evaluations)


class _Undoing:
    """The best points so far, flattened [B, D], their numbers of changes and their candidates."""

    def __init__(
        self, model: Classifier, x: torch.Tensor, labels: torch.Tensor, box: Box, misclassified: torch.Tensor
    ) -> None:
        self.model, self.shape, self.labels, self.misclassified = model, x.shape[1:], labels, misclassified
        self.x = x.flatten(1)
        self.distance = torch.full((len(x),), math.inf, dtype=torch.float64, device=x.device)
        self.distance[misclassified] = 0.0
        self.point = self.x.masked_fill(~misclassified[:, None], math.nan)
        self.candidate = torch.full_like(labels, -1)
        self.evaluations = torch.zeros_like(labels)
        lower, upper = check.flat_box(box, self.shape)
        width = torch.as_tensor(upper - lower, dtype=x.dtype, device=x.device)
        self.width = width.where(width.isfinite(), 1.0)

    def crosses(self, point: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[M] bool: whether the label has changed at `point` [M, D]."""
        if not len(rows):
            return torch.zeros_like(rows, dtype=torch.bool)
        self.evaluations[rows] += 1
        logits = logits_of(self.model, point.view(-1, *self.shape))
        return ops.logit_gap(logits, self.labels[rows]) < 0

    def sizes(self, point: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[M, D]: of the changes of `point` [M, D], 0 where there is none."""
        return (point - self.x[rows]).abs() / self.width

    def keep_fewest(self, end: torch.Tensor, rows: torch.Tensor, candidate: torch.Tensor) -> None:
        """Bisects how many of the largest changes of `end` [M, D], fewer than the best so far, have to be kept."""
        changes = (end != self.x[rows]).sum(1)
        high = torch.minimum(changes.double(), self.distance[rows] - 1).long()
        rank = self.sizes(end, rows).argsort(dim=1, descending=True, stable=True).argsort(dim=1)

        def kept(number: torch.Tensor, some: torch.Tensor) -> torch.Tensor:
            return torch.where(rank[some] < number[:, None], end[some], self.x[rows[some]])

        some = (high > 0).nonzero()[:, 0]
        some = some[self.crosses(kept(high[some], some), rows[some])]
        crossed, low = some, torch.zeros_like(high)
        while len(some := some[high[some] - low[some] > 1]):
            middle = (low[some] + high[some]) // 2
            fewer = self.crosses(kept(middle, some), rows[some])
            high[some] = torch.where(fewer, middle, high[some])
            low[some] = torch.where(fewer, low[some], middle)
        better = rows[crossed]
        self.distance[better] = high[crossed].double()
        self.point[better] = kept(high[crossed], crossed)
        self.candidate[better] = candidate[crossed]

    def undo(self) -> None:
        """Undoes changes of the best points, the smallest first."""
        rows = (self.distance.isfinite() & (self.distance > 1)).nonzero()[:, 0]
        size = self.sizes(self.point[rows], rows)
        changed = self.point[rows] != self.x[rows]
        rank = size.masked_fill(~changed, math.inf).argsort(dim=1, stable=True).argsort(dim=1)
        end = changed.sum(1)
        place, group = torch.zeros_like(end), torch.ones_like(end)
        for _ in range(UNDOING):
            some = ((place < end) & (self.distance[rows] > 1)).nonzero()[:, 0]
            if not len(some):
                break
            here, tried = rows[some], rank[some]
            first, last = place[some, None], (place + group)[some, None]
            point = torch.where((tried >= first) & (tried < last), self.x[here], self.point[here])
            undone = self.crosses(point, here)
            self.point[here[undone]] = point[undone]
            self.distance[here] = (self.point[here] != self.x[here]).sum(1).double()
            single = group[some] == 1
            place[some] += torch.where(undone, group[some], single.long())
            group[some] = torch.where(undone, 2 * group[some], (group[some] // 2).clamp_min(1))
