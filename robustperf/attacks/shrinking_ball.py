from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from robustperf import check, ops, random
from robustperf.attacks import losses
from robustperf.attacks.attack import Attack
from robustperf.attacks.losses import per_sample
from robustperf.attacks.problem import Halfspaces, Nearest, Problem
from robustperf.attacks.steps import cosine, dual, unit


class _Schedule(NamedTuple):
    """First and last values, annealed along a cosine: of the step as a fraction of the radius, and of the change of the
    radius. `first`: the fraction of a run's steps that a ball in L∞ takes."""

    step: tuple[float, float]
    change: tuple[float, float]
    first: float


_SCHEDULES = {
    math.inf: _Schedule((0.5, 0.03), (0.1, 0.001), 0.0),
    2.0: _Schedule((0.5, 0.01), (0.3, 0.005), 0.25),
    1.0: _Schedule((1.0, 0.01), (0.3, 0.005), 0.15),
}
_GROWTH = 1.6  # of the steps of the start
_BEYOND = 1.02  # how far past the boundary of the linear model a radius without a crossing is set
_SPARSE = 0.5  # the coordinates of a step in L1, as a fraction of those that δ changes
_LEAST = 0.01  # and at least this fraction of all
_TINY = 1e-300


@dataclass(frozen=True)
class ShrinkingBall(Attack):
    """Crosses the boundary in L∞, then follows it on a ball that shrinks, in the norm asked for.

    An attack of this library; docs/tight_margins.md derives it and names what it is built from. Each run descends on
    the logit gap with one forward and one backward pass a step:

    1. Start: of the first run, steps along the sign of the gradient, the first of length gap/‖∇‖₁, each next one 1.6
       times longer, until the label changes. `targets` further runs each go for one of the classes that the model
       linearised at x puts nearest, and start on their boundaries; `restarts` further ones, and those that have no
       class left, start at random points around x.
    2. Ball: the radius e falls to (1 - γ) min(e, the run's nearest crossing) after an iterate that has crossed, and
       grows by 1 + γ, up to the nearest crossing, after one that has not. The step is α e long, along the gradient
       without the coordinates that it would push out of the box (in L1 along its largest coordinates, half as many as
       have changed); then the iterate is projected onto the ball within the box (onto the sphere in L2). α and γ fall
       along a cosine. In L1 and L2 a ball in L∞ comes first.
    3. Finals: the `finalists` runs that came nearest continue on a ball of the norm, from large steps again.
    4. Refinement: the model is linearised at the nearest point found, and x projected onto its halfspace within the
       box, which is exact for linear models.

    Points whose label at x is another one already, or where the gradient vanishes, are left at once. Where no run
    crosses, the first step is returned.

    Args:
        norm: 1, 2 or inf.
        steps: of each run's balls.
        targets: how many further runs go for a class each.
        restarts: how many further runs start at random.
        finalists: how many of the runs continue.
        final_steps: of each finalist's ball.
        refinements: how many linearisations at the nearest point follow.
        classes: among how many other classes, those of the highest logits, the targets are chosen; each costs a
            backward pass.

    Raises TypeError or ValueError for a wrong argument.

    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> found = ShrinkingBall(steps=10)(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0]))
    >>> found.point
    tensor([[0.4500, 0.5500],
            [0.5000, 0.5000]])
    """

    norm: float = 2
    steps: int = 15
    targets: int = 2
    restarts: int = 0
    finalists: int = 1
    final_steps: int = 34
    refinements: int = 1
    classes: int = 5

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", check.norm(self.norm))
        check.integer("steps", self.steps, 2)
        for name in ("targets", "restarts", "finalists", "refinements"):
            check.integer(name, getattr(self, name), 0)
        check.integer("final_steps", self.final_steps, 2)
        check.integer("classes", self.classes, 1)

    def run(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        nearest = Nearest(problem, self.norm)
        point, rows = self._start(problem, nearest)
        if len(rows):
            self._search(problem, nearest, point, rows)
            self._refine(problem, nearest, rows)
        return nearest.point, nearest.gap

    @staticmethod
    def _start(problem: Problem, nearest: Nearest, steps: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
        """(point [M, ...], rows [M]): the sign steps, and the points that have a gradient and their label at x."""
        point, active = problem.x.clone(), problem.rows
        rows, length = active, nearest.gap
        for step in range(steps):
            gradient, gap, loss = problem.gradient_to(point[active], active, None)
            moves = ~(gap < 0) & gradient.flatten(1).any(1)
            if step == 0:
                rows, length = active[moves], (-loss).clamp_min(0) / _size(gradient, 1)
                nearest.offer(point[~moves], gap[~moves], active[~moves])
            else:
                nearest.offer(point[active], gap, active)
            active, gradient = active[moves], gradient[moves]
            if not len(active):
                break
            move = per_sample(length[active] * _GROWTH**step, gradient) * gradient.sign()
            point[active] = problem.clamp(point[active] + move)
        return point[rows], rows

    def _search(self, problem: Problem, nearest: Nearest, point: torch.Tensor, rows: torch.Tensor) -> None:
        """All runs, the first one from `point` [M, ...], and the finals."""
        runner_up = torch.full_like(rows, -1)
        own, reach = self._run(problem, nearest, point, rows, runner_up)
        runs, targets = [own], [runner_up]
        starts = self._targets(problem, rows) if self.targets else ()
        for number in range(self.targets + self.restarts):
            start, target = self._around(problem, rows, reach, number), runner_up
            if number < len(starts):
                point, target = starts[number]
                start = torch.where(per_sample(target >= 0, point).bool(), point, start)
            runs.append(self._run(problem, nearest, start, rows, target)[0])
            targets.append(target)
        order = torch.stack([own.distance[rows] for own in runs]).argsort(dim=0, stable=True)
        for chosen in order[: self.finalists]:
            own, target = Nearest(problem, self.norm), runner_up
            for number, run in enumerate(runs):
                here = chosen == number
                own.offer(run.point[rows[here]], run.gap[rows[here]], rows[here])
                target = torch.where(here, targets[number], target)
            self._shrink(problem, own.point[rows], rows, target, self.norm, self.final_steps, own)
            nearest.offer(own.point[rows], own.gap[rows], rows)

    def _run(
        self, problem: Problem, nearest: Nearest, point: torch.Tensor, rows: torch.Tensor, target: torch.Tensor
    ) -> tuple[Nearest, torch.Tensor]:
        """One run's balls: the nearest points that it found, and [M] float64, the L∞ radius that it reached."""
        own = reached = Nearest(problem, self.norm)
        first = round(_SCHEDULES[self.norm].first * self.steps)
        if first:
            reached = Nearest(problem, math.inf)
            self._shrink(problem, point, rows, target, math.inf, first, reached, own)
            crossed = reached.gap[rows] < 0
            point = torch.where(per_sample(crossed, point).bool(), reached.point[rows], point)
        self._shrink(problem, point, rows, target, self.norm, self.steps - first, own)
        nearest.offer(own.point[rows], own.gap[rows], rows)
        return own, reached.distance[rows].double()

    @staticmethod
    def _shrink(
        problem: Problem,
        point: torch.Tensor,
        rows: torch.Tensor,
        target: torch.Tensor,
        norm: float,
        steps: int,
        own: Nearest,
        *others: Nearest,
    ) -> None:
        """Follows the boundary on a shrinking ball of `norm` from `point`. Its iterates are offered to `own`, whose
        nearest crossing bounds the radius, and to `others`."""
        x = problem.x[rows]
        lower, upper = problem.bounds
        slack = 1 - 4 * torch.finfo(x.dtype).eps  # the rounding of a step to a bound
        low, high = slack * (lower - x), slack * (upper - x)
        schedule = _SCHEDULES[norm]
        radius = torch.full((len(rows),), math.inf, dtype=torch.float64, device=x.device)
        for step in range(steps):
            alpha, gamma = (cosine(*ends, step, steps) for ends in (schedule.step, schedule.change))
            gradient, gap, loss = problem.gradient_to(point, rows, target)
            for each in (own, *others):
                each.offer(point, gap, rows)
            delta = point - x
            best = own.distance[rows].double()
            slope = _size(gradient, dual(norm))
            ahead = (-loss).clamp_min(0) / slope  # where the linear model has its boundary
            estimate = _size(delta, norm) + _BEYOND * ahead.where(slope > _TINY, 0.0)
            following = torch.where(best < math.inf, torch.minimum(radius * (1 + gamma), best), estimate)
            radius = torch.where(gap < 0, torch.minimum(radius, best) * (1 - gamma), following)
            outwards = ((delta <= low) & (gradient < 0)) | ((delta >= high) & (gradient > 0))
            direction = _direction(gradient.masked_fill(outwards, 0.0), delta, norm)
            delta = delta + per_sample(alpha * radius, delta) * direction
            point = x + ops.ball_box_projection(x, delta, radius, norm=norm, lower=lower, upper=upper)
        gap = problem.gap(point, rows)
        for each in (own, *others):
            each.offer(point, gap, rows)

    def _targets(self, problem: Problem, rows: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(point [M, ...], target [M], -1 where there is none) for each targeted run: the classes in the order of
        their distance from x where the model is linearised."""
        x = problem.x[rows]
        halfspaces = problem.linearised(x, rows, self.classes)
        steps = torch.stack([self._step_into(problem, rows, halfspaces, j) for j in range(halfspaces.target.shape[1])])
        lengths = torch.stack([_size(step, self.norm) for step in steps])
        lengths, order = lengths.where(lengths.isfinite(), math.inf).sort(dim=0, stable=True)
        every, starts = torch.arange(len(rows), device=x.device), []
        for length, j in zip(lengths[: self.targets], order, strict=False):
            target = halfspaces.target[every, j].masked_fill(length == math.inf, -1)
            starts.append((problem.clamp(x + steps[j, every]), target))
        return starts

    def _step_into(self, problem: Problem, rows: torch.Tensor, halfspaces: Halfspaces, j: int) -> torch.Tensor:
        """[M, ...]: the shortest step from x into the halfspace of the class at place j, in the box."""
        x = problem.x[rows]
        lower, upper = check.flat_box(problem.bounds, x.shape[1:])
        step, _ = ops.halfspace_box_projection(
            x.flatten(1), halfspaces.normal[:, j], halfspaces.offset[:, j], norm=self.norm, lower=lower, upper=upper
        )
        return step.view_as(x)

    def _refine(self, problem: Problem, nearest: Nearest, rows: torch.Tensor) -> None:
        """Linearises the model at the nearest point, of earlier attacks too, and projects x onto its halfspace."""
        start = Nearest(problem, self.norm)
        start.offer(nearest.point, nearest.gap)
        if problem.best is not None:
            start.offer(problem.best.point, problem.best.gap)
        rows = rows[start.gap[rows] < 0]
        point = start.point[rows]
        for refinement in range(self.refinements):
            if not len(rows):
                return
            halfspaces = problem.linearised(point, rows)
            if refinement:
                nearest.offer(point, halfspaces.gap, rows)
            step = self._step_into(problem, rows, halfspaces, 0)
            finite = step.flatten(1).isfinite().all(1)
            rows, point = rows[finite], problem.clamp(problem.x[rows] + step)[finite]
        if self.refinements and len(rows):
            nearest.offer(point, problem.gap(point, rows), rows)

    @staticmethod
    def _around(problem: Problem, rows: torch.Tensor, reach: torch.Tensor, restart: int) -> torch.Tensor:
        """[M, ...]: a uniform draw for each point from a cube around x, with the radius that the first run reached."""
        x = problem.x[rows]
        key = random.fold_in(problem.key, restart)
        draw = random.uniform(key, problem.index[rows], 1, x[0].numel() if len(x) else 0)[0]
        reach = reach.where(reach.isfinite(), 0.1 * check.width(problem.bounds, problem.x))
        noise = (2 * draw - 1).to(x.dtype).view_as(x)
        return problem.clamp(x + per_sample(reach, x) * noise)


def _size(delta: torch.Tensor, norm: float) -> torch.Tensor:
    """[B] float64: ‖δ‖, never zero, to divide by."""
    return losses.length(delta.double(), norm).clamp_min(_TINY)


def _direction(gradient: torch.Tensor, delta: torch.Tensor, norm: float) -> torch.Tensor:
    """[M, ...]: of norm 1, or zero, along the gradient; its sign in L∞, its largest coordinates in L1, where a dense
    step would be thresholded away."""
    if norm == math.inf:
        return gradient.sign()
    if norm == 1:
        size = gradient.flatten(1).abs()
        count = (_SPARSE * (delta != 0).flatten(1).sum(1)).ceil().clamp_min(math.ceil(_LEAST * size.shape[1])).long()
        least = size.sort(dim=1, descending=True).values.gather(1, count[:, None] - 1)
        gradient = gradient.masked_fill((size < least).view_as(gradient), 0.0)
    return unit(gradient, norm)
