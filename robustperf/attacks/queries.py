"""The label queries of attacks that need no gradients: counted, within a budget, the best point kept."""

from __future__ import annotations

import math

import torch

from robustperf import check, ops, random
from robustperf.attacks.losses import per_sample
from robustperf.attacks.problem import Problem
from robustperf.classifier import logits_of

_VALUES = 1 << 23  # of the points in one evaluation of the model
_SPREAD = 3.0  # where a feature has no bounds: the first draws are this far from x, relative to max(1, |x|)


class Queries:
    """Queries of a batch of points: is the label at this point another one?

    A query beyond `limit` is not made. Every point that crosses is offered, so that `point` never gets worse.

    Attributes:
        problem: the points and the model; each query counts as one forward pass.
        norm: 1, 2 or inf, of `distance`.
        x: [B, D], the flattened points.
        lower, upper: the box of a flattened point, [D] or numbers.
        limit: the number of queries that a point may have used in all; an attack may raise it for the next one.
        used: [B] int64, the queries of each point so far.
        point: [B, D], the nearest point found with another label; x before.
        distance: [B] float64, its distance to x; inf before.
        grid: [Q] int64, ascending numbers of queries.
        curve: [B, Q] float64, the distance after that many queries.
    """

    problem: Problem
    norm: float
    limit: int
    x: torch.Tensor
    lower: torch.Tensor | float
    upper: torch.Tensor | float
    used: torch.Tensor
    point: torch.Tensor
    distance: torch.Tensor
    grid: torch.Tensor
    curve: torch.Tensor

    def __init__(
        self, problem: Problem, norm: float, limit: int, *, used: int = 0, grid: torch.Tensor | None = None
    ) -> None:
        """`used`: queries that each point has used before, such as the one for its label."""
        x = problem.x
        self.problem, self.norm, self.limit = problem, norm, limit
        self.x = x.flatten(1)
        self.lower, self.upper = check.flat_box(problem.bounds, x.shape[1:])
        self.used = torch.full((len(x),), used, dtype=torch.int64, device=x.device)
        self.point = self.x.clone()
        self.distance = torch.full((len(x),), math.inf, dtype=torch.float64, device=x.device)
        self.grid = self.used.new_zeros(0) if grid is None else grid
        self.curve = self.distance[:, None].repeat(1, len(self.grid))

    @property
    def active(self) -> torch.Tensor:
        """[M] int64: the rows with a point that crosses, which may still be queried."""
        return (self.distance.isfinite() & (self.distance > 0) & (self.used < self.limit)).nonzero()[:, 0]

    def start(self, point: torch.Tensor, rows: torch.Tensor) -> None:
        """Takes points [M, D] that are known to cross, without a query."""
        self._keep(point[None], torch.ones(1, len(rows), dtype=torch.bool, device=point.device), rows, self.used[rows])

    def crosses(self, point: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[M] bool: whether the points [M, D] within the box, of the rows [M], have another label. One query each."""
        return self.each_crosses(point[None], rows)[0]

    def each_crosses(self, point: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[K, M] bool for K points of each row, [K, M, D], queried in their order."""
        number = self.used[rows] + torch.arange(1, len(point) + 1, device=rows.device)[:, None]
        allowed = number <= self.limit
        crossed = torch.zeros_like(allowed)
        crossed[allowed] = self._evaluate(point[allowed], rows.expand(len(point), -1)[allowed])
        made = allowed.sum(0)
        self.used[rows] += made
        self.problem.evaluations[rows] += made
        self._keep(point, crossed, rows, number)
        return crossed

    def clamp(self, point: torch.Tensor) -> torch.Tensor:
        """`point` [..., D] clamped to the box."""
        return torch.clamp(point, self.lower, self.upper)

    def length(self, point: torch.Tensor, rows: torch.Tensor, norm: float | None = None) -> torch.Tensor:
        """[..., M] float64, the distance of points [..., M, D] to x, in `norm` or the norm of the queries."""
        return torch.linalg.vector_norm(point - self.x[rows], norm or self.norm, dim=-1, dtype=torch.float64)

    def to_boundary(self, far: torch.Tensor, rows: torch.Tensor, tol: float) -> torch.Tensor:
        """Points [M, D] that cross, nearer to x than `far`, which crosses: by bisection of the segment from x, or, for
        the norm inf, of the radius of the ball that `far` is projected onto. At `tol` of the length nearer to x there
        is a point that does not cross, unless the queries ran out."""
        low, high = far.new_zeros(len(rows)), far.new_ones(len(rows))
        best = far.clone()
        radius = self.length(far, rows).to(far.dtype)
        for _ in range(math.ceil(-math.log2(tol))):
            some = (self.used[rows] < self.limit).nonzero()[:, 0]
            if not some.numel():
                break
            middle = (low[some] + high[some]) / 2
            x = self.x[rows[some]]
            if self.norm == math.inf:
                reach = (middle * radius[some])[:, None]
                point = torch.minimum(torch.maximum(far[some], x - reach), x + reach)
            else:
                point = x + middle[:, None] * (far[some] - x)
            point = self.clamp(point)
            crossed = self.crosses(point, rows[some])
            best[some[crossed]] = point[crossed]
            high[some] = torch.where(crossed, middle, high[some])
            low[some] = torch.where(crossed, low[some], middle)
        return best

    def draw_starts(self, most: int = 256, at_once: int = 4) -> None:
        """Queries uniform draws from the box for the rows that have no point that crosses, until one does: `most` draws
        or half the limit. Where a feature has no bounds, draws are around x, from an ever larger range."""
        key, problem = random.fold_in(self.problem.key, 0), self.problem
        finite = torch.as_tensor(self.upper - self.lower, dtype=self.x.dtype, device=self.x.device).isfinite()
        for first in range(0, min(most, (self.limit + 1) // 2), at_once):
            rows = (self.distance.isinf() & (self.used < self.limit)).nonzero()[:, 0]
            if not rows.numel():
                return
            number = torch.arange(first, first + at_once, device=rows.device)
            u = random.uniform(key, problem.index[rows], number, self.x.shape[1]).to(self.x.dtype)
            x = self.x[rows]
            around = x + (2 * u - 1) * _SPREAD * 2.0 ** min(first // at_once, 20) * x.abs().clamp_min(1)
            if finite.any():
                lower, upper = (
                    torch.as_tensor(bound, dtype=x.dtype, device=x.device) for bound in (self.lower, self.upper)
                )
                around = torch.where(finite, lower + u * (upper - lower).where(finite, 0.0), around)
            self.each_crosses(self.clamp(around), rows)

    def _evaluate(self, point: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[M] bool, for points [M, D], in evaluations of bounded size."""
        problem, crossed = self.problem, []
        at_once = max(64, _VALUES // max(1, point.shape[1]))
        with torch.no_grad():
            for part, place in zip(point.split(at_once), rows.split(at_once), strict=True):
                if len(part):
                    logits = logits_of(problem.model, part.reshape(-1, *problem.x.shape[1:]))
                    crossed.append(ops.logit_gap(logits, problem.labels[place]) < 0)
        return torch.cat(crossed) if crossed else rows.new_zeros(0, dtype=torch.bool)

    def _keep(self, point: torch.Tensor, crossed: torch.Tensor, rows: torch.Tensor, number: torch.Tensor) -> None:
        length = self.length(point, rows).masked_fill(~crossed, math.inf)
        nearest, place = length.min(0)
        better = nearest < self.distance[rows]
        winner = point[place, torch.arange(len(rows), device=rows.device)]
        self.point[rows] = torch.where(per_sample(better, winner).bool(), winner, self.point[rows])
        self.distance[rows] = torch.where(better, nearest, self.distance[rows])
        if len(self.grid) and better.any():
            reached = length[..., None].masked_fill((number.expand_as(length)[..., None] > self.grid), math.inf)
            self.curve[rows] = torch.minimum(self.curve[rows], reached.amin(0))
