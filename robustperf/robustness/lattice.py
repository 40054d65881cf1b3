"""Adversarial examples that survive being saved: the nearest points of a lattice, such as that of 8-bit images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from robustperf import ops
from robustperf.check import Box
from robustperf.classifier import Classifier, evaluating, logits_of
from robustperf.robustness.margin_result import Margins, checked_points

Lattice = float | torch.Tensor | np.ndarray
"""The distance of neighbouring lattice points along each axis: a number, or an array that broadcasts to an image."""

EVALUATIONS = 64
"""The most evaluations of a point that rounding takes, after the one of x."""

_SCALES = (1.0, 1.02, 1.06, 1.15, 1.4, 2.0)
_ROUNDINGS = (torch.round, torch.floor, torch.ceil)  # of coordinates that do not move, where x is not on the lattice
_ON_LATTICE = 1e-3  # of a step: a coordinate this close to a lattice point is on it


class Search(Protocol):
    """`MarginSearch` and its kin."""

    @property
    def model(self) -> Classifier: ...

    @property
    def norm(self) -> float: ...

    @property
    def batch_size(self) -> int: ...

    def stream(
        self, x: torch.Tensor, *, labels: torch.Tensor | None = None, index: torch.Tensor | None = None
    ) -> Iterator[Margins]: ...


@dataclass(frozen=True)
class LatticeSearch:
    """Margins on a lattice: those of `search`, which must keep its points, with every point rounded to it.

    Lattice points are lower + n `lattice` for integers n, and n `lattice` where there is no lower bound. A found point
    is rounded away from x, coordinate by coordinate. Where the label is then that of x, the difference to x is
    enlarged before it is rounded. Then groups of coordinates, ever smaller ones, are moved back towards x by one step,
    as long as the label stays another one and the distance at least that of the continuous point.
    """

    search: Search
    lattice: Lattice
    bounds: Box = (0.0, 1.0)
    keep_points: bool = False

    def stream(
        self, x: torch.Tensor, *, labels: torch.Tensor | None = None, index: torch.Tensor | None = None
    ) -> Iterator[Margins]:
        """As `MarginSearch.stream`."""
        x, index, box = checked_points(x, labels, index, self.bounds)
        grid = _Grid.of(self.lattice, box, x)
        parts = self.search.stream(x, labels=labels, index=index)
        for first, part in zip(range(0, max(len(x), 1), self.search.batch_size), parts, strict=True):
            rows = slice(first, first + len(part))
            yield self._rounded(part, x[rows], None if labels is None else labels[rows], grid)

    def _rounded(self, part: Margins, x: torch.Tensor, labels: torch.Tensor | None, grid: _Grid) -> Margins:
        rows = (part.distance.isfinite() & (part.distance > 0)).nonzero()[:, 0].to(x.device)
        distance, point, evaluations = part.distance.clone(), part.point.clone(), part.evaluations.clone()
        if rows.numel():
            with evaluating(self.search.model), torch.no_grad():
                moved, length, made = self._nearest(x[rows], part.point.to(x.device)[rows], distance.to(x.device)[rows],
                                                    None if labels is None else labels[rows], grid)  # fmt: skip
            rows = rows.cpu()
            distance[rows], point[rows], evaluations[rows] = length.cpu(), moved.cpu(), evaluations[rows] + made.cpu()
        found = distance.isfinite()
        counts = part.diagnostics
        if counts is not None:
            counts = replace(counts, missing=counts.missing + int((part.found & ~found).sum()))
        return replace(
            part, distance=distance, found=found, evaluations=evaluations, point=point if self.keep_points else None,
            attack=part.attack.where(found, -1), exact=torch.zeros_like(part.exact), diagnostics=counts,
        )  # fmt: skip

    def _nearest(
        self, x: torch.Tensor, point: torch.Tensor, least: torch.Tensor, labels: torch.Tensor | None, grid: _Grid
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(lattice points [B, ...], NaN where none was found, their distances [B], evaluations [B])."""
        made = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        if labels is None:
            labels = logits_of(self.search.model, x).argmax(1)
            made += 1
        flat, norm = x.flatten(1), self.search.norm

        def length(n, rows):
            return torch.linalg.vector_norm(grid.point(n) - flat[rows], norm, dim=1, dtype=torch.float64)

        def crosses(n, rows):
            made[rows] += 1
            logits = logits_of(self.search.model, grid.point(n).view(-1, *x.shape[1:]))
            return ops.logit_gap(logits, labels[rows]) < 0

        home = grid.within(grid.position(flat).round())
        offset = grid.position(point.flatten(1)) - grid.position(flat)
        number, rows = home.clone(), torch.arange(len(x), device=x.device)
        for still in _ROUNDINGS:
            for scale in _SCALES if rows.numel() else ():
                here = grid.position(flat[rows])
                tried = grid.away(here + scale * offset[rows], still(here), offset[rows])
                crossed = crosses(tried, rows) & (length(tried, rows) >= least[rows])
                number[rows[crossed]] = tried[crossed]
                rows = rows[~crossed]
        lost = torch.zeros_like(least, dtype=torch.bool)
        lost[rows] = True
        rows = (~lost).nonzero()[:, 0]
        self._move_back(number, home, rows, least, length, crosses)
        distance = length(number, torch.arange(len(x), device=x.device)).masked_fill(lost, math.inf)
        moved = grid.point(number).masked_fill(lost[:, None], math.nan).view_as(x)
        return moved, distance, made

    def _move_back(
        self,
        number: torch.Tensor,
        home: torch.Tensor,
        rows: torch.Tensor,
        least: torch.Tensor,
        length: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        crosses: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> None:
        """Moves groups of coordinates of `number` towards `home`, from half of them to single ones."""
        dim, groups, left = number.shape[1], 1, EVALUATIONS - len(_SCALES) * len(_ROUNDINGS)
        while left > 0 and rows.numel():
            away = (number[rows] - home[rows]).abs()
            # the farthest coordinates save most; those that are home already come last
            rank = away.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
            group = rank * groups // (away > 0).sum(1, keepdim=True).clamp_min(1)
            improved = torch.zeros_like(rows, dtype=torch.bool)
            for place in range(min(groups, left)):
                step = (number[rows] - home[rows]).sign().where(group == place, 0.0)
                tried = number[rows] - step
                now = length(tried, rows)
                some = ((now < length(number[rows], rows)) & (now >= least[rows])).nonzero()[:, 0]
                if some.numel():
                    some = some[crosses(tried[some], rows[some])]
                    number[rows[some]] = tried[some]
                    improved[some] = True
                left -= 1
            if groups >= dim:
                rows = rows[improved]
            groups = min(2 * groups, dim)


@dataclass(frozen=True)
class _Grid:
    """The lattice points origin + n step, first <= n <= last, of flattened images [B, D]."""

    origin: torch.Tensor  # [D] float64
    step: torch.Tensor  # [D] float64
    first: torch.Tensor  # [D] float64, of n
    last: torch.Tensor
    box: tuple[torch.Tensor, torch.Tensor]  # [D] of the images' dtype

    @staticmethod
    def of(lattice: Any, box: Box, x: torch.Tensor) -> _Grid:
        """Raises TypeError or ValueError unless `lattice` is above 0 and broadcasts to an image."""
        shape = x.shape[1:]
        try:
            step = torch.as_tensor(lattice, dtype=torch.float64, device=x.device)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"lattice: expected a number or an array, got {lattice!r}") from None
        try:
            step = step.expand(shape).flatten()
        except RuntimeError:
            raise ValueError(
                f"lattice: expected a number or an array that broadcasts to {list(shape)}, got {list(step.shape)}"
            ) from None
        if not ((step > 0) & step.isfinite()).all():
            raise ValueError(f"lattice: expected steps above 0, got {lattice!r}")
        lower, upper = (torch.as_tensor(b, dtype=x.dtype, device=x.device).expand(shape).flatten() for b in box)
        origin = lower.double().nan_to_num(neginf=0.0)
        first = torch.where(lower.isfinite(), 0.0, -math.inf).double()
        return _Grid(origin, step, first, ((upper.double() - origin) / step + 1e-6).floor(), (lower, upper))

    def position(self, x: torch.Tensor) -> torch.Tensor:
        """[B, D] float64, n as a real number."""
        n = (x.double() - self.origin) / self.step
        return torch.where((n - n.round()).abs() < _ON_LATTICE, n.round(), n)

    def away(self, n: torch.Tensor, still: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """n rounded in the direction of the offset, within the box; `still` where that is 0."""
        return self.within(torch.where(offset > 0, n.ceil(), torch.where(offset < 0, n.floor(), still)))

    def within(self, n: torch.Tensor) -> torch.Tensor:
        """n in the box."""
        return torch.minimum(torch.maximum(n, self.first), self.last)

    def point(self, n: torch.Tensor) -> torch.Tensor:
        """[B, D] of the images' dtype. Divided where 1 / step is an integer: n / 255 as readers of images round it."""
        count = (1 / self.step).round()
        moved = torch.where((count * self.step - 1).abs() < 1e-12, n / count, n * self.step)
        return (self.origin + moved).to(self.box[0].dtype).clamp(*self.box)
