from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from robustperf import check, ops, random
from robustperf.attacks.label_attack import LabelAttack
from robustperf.attacks.queries import Queries

_AT_ONCE = 16  # probes of each point in one evaluation
_HALVINGS = 10  # of the offset of a projection, without queries


@dataclass(frozen=True)
class HopSkipJump(LabelAttack):
    """Walks along the decision boundary by an estimate of its normal, from labels only.

    Chen, Jordan & Wainwright, "HopSkipJumpAttack: A query-efficient decision-based attack", IEEE S&P 2020
    (arXiv:1904.02144), for the norms 2 and inf. Step t estimates the normal at the boundary point b from
    B_t = B_0 sqrt(t) probes b + δ u with u uniform on the sphere: v is the mean of (φ - mean φ) u, with φ = 1 for
    another label and -1 for the same one. It moves by ‖b - x‖ / sqrt(t) along v (along its signs for inf), halved until
    the label is another one, and bisects the segment back to x with the tolerance θ. The probes' size is
    δ = sqrt(D) θ ‖b - x‖_2, or D θ ‖b - x‖_∞. As published, B_0 = 100, and θ = D^-1.5 for the norm 2 and D^-2 for inf.

    Beyond the publication:

    - each step starts at the nearest point so far, so that it is never worse than the start;
    - with `project`, x is first projected onto the halfspace {z : ⟨v, z - x⟩ >= c} within the box, in the norm
      (`ops.halfspace_box_projection`), c such that this point is as far as the nearest one. If it has another label,
      the step goes there. For a flat boundary this leads to the nearest point, in any norm, also where the box is
      active; norm 1 has no other step of its own;
    - θ is at most 2^-10, since D^-1.5 is too coarse for a few features, and at least 4 units in the last place of the
      dtype, since further bisections would not move the point; B_0 follows D.

    Args:
        norm: 1, 2 or inf.
        queries: at most, for each point.
        probes: B_0; None takes 4 D, but at least 8 and at most 100, which is the published one.
        project: whether to try the projection.

    >>> rule = rp.LabelOnly(lambda points: points.sum(1) > 1, classes=[False, True])
    >>> rp.margins(rule, torch.tensor([[0.6, 0.7], [0.2, 0.1]]), attacks=[HopSkipJump(queries=200)])
    Margins(n=2, norm=2, median=0.212, not found=0, access=labels)
    """

    norm: float = 2
    queries: int = 1000
    probes: int | None = None
    project: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", check.norm(self.norm))
        check.integer("queries", self.queries, 1)
        if self.probes is not None:
            check.integer("probes", self.probes, 2)

    def improve(self, queries: Queries) -> None:
        dim = queries.x.shape[1]
        theta = min(dim ** (-2.0 if self.norm == math.inf else -1.5), 2.0**-10)
        theta = max(theta, 4 * torch.finfo(queries.x.dtype).eps)
        probes = self.probes or min(100, max(8, 4 * dim))
        rows = queries.active
        queries.to_boundary(queries.point[rows], rows, theta)
        step = 0
        while (rows := queries.active).numel():
            step += 1
            count = math.ceil(probes * math.sqrt(step))
            base = queries.point[rows].clone()
            normal = self._normal(queries, base, rows, theta, count, random.fold_in(queries.problem.key, step))
            left = torch.ones_like(rows, dtype=torch.bool)
            if self.project:
                left = self._projected(queries, base, normal, rows, theta)
            self._jump(queries, base[left], normal[left], rows[left], step, theta)

    def _normal(
        self, queries: Queries, base: torch.Tensor, rows: torch.Tensor, theta: float, count: int, key: int
    ) -> torch.Tensor:
        """[M, D], the estimate of the boundary's normal, towards the other label; of length 1."""
        dim = base.shape[1]
        if self.norm == math.inf:
            size = dim * theta * queries.length(base, rows)
        else:
            size = math.sqrt(dim) * theta * queries.length(base, rows, 2.0)
        # a probe must differ from the point after rounding
        least = 16 * math.sqrt(dim) * torch.finfo(base.dtype).eps * base.abs().amax(1).double()
        size = torch.maximum(size, least).to(base.dtype)[:, None]
        positive, every = torch.zeros_like(base), torch.zeros_like(base)
        crossings, made = base.new_zeros(len(rows), 1), base.new_zeros(len(rows), 1)
        for first in range(0, count, _AT_ONCE):
            numbers = torch.arange(first, min(first + _AT_ONCE, count), device=rows.device)
            u = random.normal(key, queries.problem.index[rows], numbers, dim).to(base.dtype)
            u = u / torch.linalg.vector_norm(u, dim=2, keepdim=True).clamp_min(1e-12)
            point = queries.clamp(base + size * u)
            u = (point - base) / size  # of what was queried
            before = queries.used[rows]
            crossed = queries.each_crosses(point, rows)
            valid = (numbers - first)[:, None] < (queries.used[rows] - before)
            # one by one: the rounding of a sum over them would depend on the batch
            for one, counts, changed in zip(u, valid.to(base.dtype), crossed.to(base.dtype), strict=True):
                positive += changed[:, None] * one
                every += counts[:, None] * one
            crossings += crossed.sum(0)[:, None]
            made += valid.sum(0)[:, None]
        # with φ = 2 c - 1 the sum of (φ - mean φ) u is 2 (Σ c u - mean c Σ u); of one sign only: ± Σ u
        fraction = crossings / made.clamp_min(1)
        normal = positive - fraction * every
        normal = torch.where((crossings == 0), -every, torch.where(crossings == made, every, normal))
        return normal / torch.linalg.vector_norm(normal, dim=1, keepdim=True).clamp_min(1e-30)

    def _projected(
        self, queries: Queries, base: torch.Tensor, normal: torch.Tensor, rows: torch.Tensor, theta: float
    ) -> torch.Tensor:
        """Queries the projections of x onto halfspaces beyond the estimated one, as far as the nearest distance so far:
        a crossing there is nearer, and is bisected. Returns where there is none, [M] bool."""
        x, most = queries.x[rows], (1 - theta) * queries.distance[rows]
        offset = (normal.double() * (base - x).double()).sum(1)

        def at(factor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            delta, _ = ops.halfspace_box_projection(
                x, normal, factor * offset, norm=self.norm, lower=queries.lower, upper=queries.upper
            )
            point = queries.clamp(x + delta.nan_to_num(0.0))
            return point, queries.length(point, rows)

        low = torch.ones_like(offset)
        point, length = at(low)
        # the length is convex in the offset: at this factor it is `most` or, in the box, more
        high = (most / length.clamp_min(1e-300)).clamp(1.0, 1e6)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            fits = at(middle)[1] <= most
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
        point, length = at(low)
        some = ((offset > 0) & (length <= most)).nonzero()[:, 0]
        crossed = queries.crosses(point[some], rows[some])
        some = some[crossed]
        queries.to_boundary(point[some], rows[some], theta)
        left = torch.ones_like(rows, dtype=torch.bool)
        left[some] = False
        return left

    def _jump(
        self, queries: Queries, base: torch.Tensor, normal: torch.Tensor, rows: torch.Tensor, step: int, theta: float
    ) -> None:
        direction = normal.sign() if self.norm == math.inf else normal
        length = queries.length(base, rows, math.inf if self.norm == math.inf else 2.0)
        size = (length / math.sqrt(step)).to(base.dtype)[:, None]
        for _ in range(12):
            if not rows.numel():
                return
            point = queries.clamp(base + size * direction)
            crossed = queries.crosses(point, rows)
            queries.to_boundary(point[crossed], rows[crossed], theta)
            left = ~crossed & (queries.used[rows] < queries.limit)
            base, direction, rows, size = base[left], direction[left], rows[left], size[left] / 2
