from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from robustperf import check, random
from robustperf.attacks.label_attack import LabelAttack
from robustperf.attacks.queries import Queries


@dataclass(frozen=True)
class SurFree(LabelAttack):
    """Moves on circles through x and the nearest point so far, in random planes, from labels only.

    Maho, Furon & Le Merrer, "SurFree: a fast surrogate-free black-box attack", CVPR 2021 (arXiv:2011.12807). With the
    nearest point x + r u and a random direction v orthogonal to u, the points z(α) = x + r cos α (cos α u + sin α v)
    lie on a circle through both, and are nearer to x by cos α. If the boundary is a hyperplane, z(α) or z(-α) crosses
    for every small α, whatever its normal: no gradient is estimated. The angles ±α_max, ±(T - 1) α_max / T, ...,
    ±α_max / T are queried until one crosses, then the largest angle is bisected. α_max, at first 30 degrees as
    published, grows after a success and shrinks after a failure. Where nothing crosses, the next direction is drawn.
    Directions for images are drawn from the lower half of the frequencies of the cosine transform.

    Unlike the publication:

    - directions are orthogonal to u, but not to the directions tried before;
    - α_max grows by a factor of 1.1 and shrinks by one of 0.8, a little faster;
    - after a success, the point at 0.95 of the distance is queried too, instead of a bisection of the segment to x.

    The circles are those of the norm 2; for norms 1 and inf, the nearest point in that norm is kept. A point of the
    circle that leaves the box is clamped to it, which brings it nearer to x.

    Args:
        norm: 1, 2 or inf, of the nearest point.
        queries: at most, for each point.
        angle: α_max at first, in degrees, above 0 and below 90.
        angles: T.
        bisections: of the angle after a success.
        frequencies: the fraction of the frequencies of each axis of an image that directions are drawn from.

    >>> rule = rp.LabelOnly(lambda points: points.sum(1) > 1, classes=[False, True])
    >>> rp.margins(rule, torch.tensor([[0.6, 0.7], [0.2, 0.1]]), attacks=[SurFree(queries=200)])
    Margins(n=2, norm=2, median=0.212, not found=0, access=labels)
    """

    norm: float = 2
    queries: int = 1000
    angle: float = 30.0
    angles: int = 3
    bisections: int = 4
    frequencies: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", check.norm(self.norm))
        check.integer("queries", self.queries, 1)
        check.number("angle", self.angle, above=0, below=90)
        check.integer("angles", self.angles, 1)
        check.integer("bisections", self.bisections, 0)
        check.number("frequencies", self.frequencies, above=0, most=1)

    def improve(self, queries: Queries) -> None:
        rows = queries.active
        point = queries.point.clone()  # of the circles; the nearest in the norm 2
        point[rows] = queries.to_boundary(queries.point[rows], rows, 2.0**-10)
        widest = torch.full_like(queries.distance, math.radians(self.angle))
        step = 0
        while (rows := queries.active).numel():
            step += 1
            key = random.fold_in(queries.problem.key, step)
            offset = point[rows] - queries.x[rows]
            radius = torch.linalg.vector_norm(offset, dim=1, keepdim=True).clamp_min(1e-30)
            u = offset / radius
            v = self._directions(queries, rows, key)
            v = v - (v * u).sum(1, keepdim=True) * u
            v = v / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp_min(1e-30)

            def at(angle: torch.Tensor, some: torch.Tensor, u=u, v=v, radius=radius, rows=rows) -> torch.Tensor:
                cos, sin = angle.cos()[:, None].to(u.dtype), angle.sin()[:, None].to(u.dtype)
                turned = cos * u[some] + sin * v[some]
                return queries.clamp(queries.x[rows[some]] + radius[some] * cos * turned)

            largest = self._search(queries, at, rows, widest[rows])
            success = largest != 0
            widest[rows] = (widest[rows] * torch.where(success, 1.1, 0.8)).clamp(1e-4, math.radians(80))
            some = success.nonzero()[:, 0]
            found = at(largest[some], some)
            shorter = queries.x[rows[some]] + 0.95 * (found - queries.x[rows[some]])
            nearer = queries.crosses(shorter, rows[some])
            point[rows[some]] = torch.where(nearer[:, None], shorter, found)

    def _search(
        self,
        queries: Queries,
        at: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        rows: torch.Tensor,
        widest: torch.Tensor,
    ) -> torch.Tensor:
        """[M] float64, the largest angle found that crosses, with its sign; 0 where none does."""
        found = torch.zeros_like(widest)
        beyond = widest.clone()
        some = torch.arange(len(rows), device=rows.device)
        for part in range(self.angles, 0, -1):
            for sign in (1.0, -1.0):
                if some.numel():
                    angle = sign * widest[some] * part / self.angles
                    crossed = queries.crosses(at(angle, some), rows[some])
                    found[some[crossed]] = angle[crossed]
                    beyond[some[crossed]] = (widest[some] * (part + 1) / self.angles)[crossed]
                    some = some[~crossed & (queries.used[rows[some]] < queries.limit)]
        some = (found != 0).nonzero()[:, 0]
        beyond = beyond.clamp(max=math.radians(89))
        for _ in range(self.bisections):
            middle = found[some].sign() * (found[some].abs() + beyond[some]) / 2
            crossed = queries.crosses(at(middle, some), rows[some])
            beyond[some] = torch.where(crossed, beyond[some], middle.abs())
            found[some] = torch.where(crossed, middle, found[some])
        return found

    def _directions(self, queries: Queries, rows: torch.Tensor, key: int) -> torch.Tensor:
        """[M, D] random directions."""
        shape, dtype = queries.problem.x.shape[1:], queries.x.dtype
        index = queries.problem.index[rows]
        if len(shape) != 3 or min(shape[1:]) < 8:
            return random.normal(key, index, 1, queries.x.shape[1])[0].to(dtype)
        channels, *sides = shape
        kept = [math.ceil(self.frequencies * side) for side in sides]
        bases = []
        for side, count in zip(sides, kept, strict=True):
            place = (torch.arange(side, device=rows.device, dtype=torch.float64) + 0.5) * math.pi / side
            bases.append(torch.cos(place * torch.arange(count, device=rows.device)[:, None]).to(dtype))
        drawn = random.normal(key, index, 1, channels * math.prod(kept))[0].to(dtype).view(-1, channels, *kept)
        return torch.einsum("mcij,ih,jw->mchw", drawn, *bases).flatten(1)
