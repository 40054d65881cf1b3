from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from robustperf import check
from robustperf.attacks.attack import Attack
from robustperf.attacks.problem import Nearest, Problem
from robustperf.attacks.sparse_step import room, sparse_step
from robustperf.attacks.steps import cosine, first_gradient, largest_one

_GROWTH = 1.5  # of the number of changed values until a run has crossed
_TINY = 1e-38


@dataclass(frozen=True)
class ShrinkingSupport(Attack):
    """Moves the most promising values of x to the edge of the box, and fewer of them after each crossing. A
    minimal-norm attack in L0, the number of changed values (each channel of a pixel counts on its own).

    Of k changed values within the box, those with the largest |G_i| room_i raise a linear loss with gradient G most:
    room_i is the distance of x_i to the edge in the direction of G_i. Each step goes there, as Frank-Wolfe's method
    does, with G the sum of the gradients at all earlier iterates, each scaled to a largest component of 1 and weighted
    by `momentum` to the power of its age. k begins at what the model linearised at x needs. It grows until a run has
    crossed; then it is at least one below the fewest changed values found, by a fraction that falls from `first` to
    `last` along a cosine, and grows by this fraction after a step that did not cross. A value without a bound moves as
    far as it alone would have to in the linearised model, twice as far after each step of the same run before the first
    crossing.

    Further runs go for a class each, in the order of the number of values that the linearised model needs, without the
    class that the first run has found. Where there are fewer classes, runs are repeated with a longer memory.

    Cost of R = 1 + `targets` runs: R (`steps` + 1) forward passes at most, and R (`steps` - 1) + 1 + J backward passes,
    where J is the number of other classes, at most `classes`, and 0 without targets.

    Sources: Frank & Wolfe, "An algorithm for quadratic programming", 1956 (the step); Pintor et al., "Fast
    minimum-norm adversarial attacks through adaptive norm constraints", NeurIPS 2021 (the bound that shrinks after a
    crossing and grows otherwise). docs/tight_margins.md has what was measured.

    Args:
        steps: of each run.
        targets: how many further runs go for a class each.
        momentum: of the gradients, in [0, 1).
        first, last: the fraction at the first and at the last step.
        classes: among how many other classes, those of the highest logits, the targets are chosen; each costs a
            backward pass.

    Raises TypeError or ValueError for a wrong argument.

    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> found = ShrinkingSupport(steps=10)(model, torch.tensor([[0.6, 0.7], [0.9, 0.8]]), torch.tensor([0, 0]))
    >>> found.point
    tensor([[0.6000, 0.0000],
            [0.0000, 0.8000]])
    """

    steps: int = 95
    targets: int = 0
    momentum: float = 0.7
    first: float = 0.3
    last: float = 0.02
    classes: int = 9

    def __post_init__(self) -> None:
        check.integer("steps", self.steps, 1)
        check.integer("targets", self.targets, 0)
        check.integer("classes", self.classes, 1)
        check.number("momentum", self.momentum, least=0, below=1)
        for name in ("first", "last"):
            check.number(name, getattr(self, name), above=0, below=1)

    def run(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        nearest = Nearest(problem, 0)
        rows, gradient, gap = first_gradient(problem, nearest)
        self._shrink(problem, nearest, rows, gradient.flatten(1), gap, None, self.momentum)
        rows = rows[(nearest.distance[rows] > 1)]
        if self.targets and len(rows):
            for normal, offset, target, momentum in self._targets(problem, nearest, rows):
                self._shrink(problem, nearest, rows, normal, offset, target, momentum)
        return nearest.point, nearest.gap

    def _shrink(
        self,
        problem: Problem,
        nearest: Nearest,
        rows: torch.Tensor,
        gradient: torch.Tensor,
        gap: torch.Tensor,
        target: torch.Tensor | None,
        momentum: float,
    ) -> None:
        """One run of the points `rows` [M], with the gradient [M, D] and the loss to overcome [M] of the model
        linearised at x, towards the classes `target` [M]."""
        x, shape = problem.x[rows].flatten(1), problem.x.shape[1:]
        lower, upper = check.flat_box(problem.bounds, shape)
        offset = gap.clamp_min(0).to(x.dtype)
        needed = (sparse_step(x, gradient, offset, lower, upper)[0] != 0).sum(1).double()
        dim = x.shape[1]
        size = needed.where(needed > 0, dim).clamp(1, max(dim / 8, 1))
        reach = 2 * offset.clamp_min(_TINY) / gradient.abs().amax(1).clamp_min(_TINY)
        best = torch.full_like(size, math.inf)
        total = torch.zeros_like(x)
        for step in range(self.steps):
            active = best > 1
            if not active.all():
                rows, x, gradient, size, reach, best, total = (
                    values[active] for values in (rows, x, gradient, size, reach, best, total)
                )
                target = None if target is None else target[active]
            if not len(rows):
                return
            total = momentum * total + largest_one(gradient)
            far = room(x, total, lower, upper)
            far = torch.where(far.isinf(), reach[:, None], far)
            gain = total.abs() * far
            rank = gain.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
            moves = (rank < size.round()[:, None]) & (gain > 0)
            point = problem.clamp((x + (total.sign() * far).where(moves, 0.0)).view(-1, *shape))
            if step == self.steps - 1:
                gap = problem.gap(point, rows)
            else:
                gradient, gap, _ = problem.gradient_to(point, rows, target)
                gradient = gradient.flatten(1)
            nearest.offer(point, gap, rows)
            crossed = gap < 0
            count = (point.flatten(1) != x).sum(1).double()
            best = torch.minimum(best, count.where(crossed, math.inf))
            fraction = cosine(self.first, self.last, step, self.steps)
            fewer = torch.minimum(best - 1, (1 - fraction) * best)
            growth = torch.where(best.isinf(), _GROWTH, 1 + fraction)
            more = torch.minimum(torch.maximum(size + 1, growth * size), best - 1)
            size = torch.where(crossed, fewer, more).clamp(1, dim)
            reach = torch.where(best.isinf(), (2 * reach).clamp_max(1e30), reach)

    def _targets(
        self, problem: Problem, nearest: Nearest, rows: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]]:
        """(normal [M, D], offset [M], target [M], momentum) of each targeted run."""
        x = problem.x[rows].flatten(1)
        lower, upper = check.flat_box(problem.bounds, problem.x.shape[1:])
        found = problem.logits(nearest.point[rows], rows).argmax(1)
        half = problem.linearised(problem.x[rows], rows, self.classes)
        normals = half.normal.masked_fill(~half.normal.isfinite(), 0.0)
        counts, classes = [], half.target.shape[1]
        for j in range(classes):
            offset = half.offset[:, j].clamp_min(0).to(x.dtype)
            step, feasible = sparse_step(x, normals[:, j], offset, lower, upper)
            counts.append((step != 0).sum(1).where(feasible, x.shape[1]))
        last = torch.where(half.target == found[:, None], x.shape[1] + 1, torch.stack(counts, 1))
        order = last.argsort(dim=1, stable=True)
        others, every = max(classes - 1, 1), torch.arange(len(rows), device=x.device)
        for run in range(self.targets):
            j = order[:, run % others]
            memory = 1 + run // others + (classes == 1)
            yield normals[every, j], half.offset[every, j], half.target[every, j], 1 - (1 - self.momentum) / memory
