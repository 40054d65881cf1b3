from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from robustperf import check, ops
from robustperf.attacks.attack import Attack
from robustperf.attacks.problem import Nearest, Problem
from robustperf.ops.logit_gap import rounding_tolerance_of


@dataclass(frozen=True)
class BG(Attack):
    """The closest point of the linearised network in the box, for each other class, with a little overshoot.

    Hein & Andriushchenko, "Formal guarantees on the robustness of a classifier against adversarial manipulation",
    NeurIPS 2017, section 4 (T [11]): for class j, min ‖δ‖ with ⟨∇(f_j - f_y)(x), δ⟩ >= s (f_y - f_j)(x) and x + δ in
    the box, solved exactly by `ops.halfspace_box_projection`. The linear model is wrong by a little, so the
    right-hand side is scaled up by s until the network's label changes. The steps of all classes and scales above 1 are
    tried from the shortest on: the first that crosses is the closest of them.

    Before them the nearest class's step of scale 1 is tried. It passes the linear model's boundary by no more than a
    crossing needs (twice the rounding tolerance of `ops.logit_gap`), so that the point found for a linear classifier is
    the nearest one, in the box too. Where it has not crossed, scales that are too small for that class, by the secant
    through the gaps at x and there, are tried last.

    `steps` above 1 goes beyond the publication: the network is linearised again at the point found, x is projected
    onto the new halfspaces, and the closest crossing of all steps is kept.

    Args:
        norm: 1, 2 or inf.
        overshoot: the scales s, each at least 1; without 1.0 among them the exact step is not tried.
        classes: how many of the other classes, those with the highest logits, to target; None for all.
        steps: how many linearisations; 1 is the published attack.

    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> found = BG(norm=2)(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0]))
    >>> found
    Adversarial(n=2, crossed=2)
    >>> found.point.sum(1) < 1
    tensor([True, True])
    """

    norm: float = 2
    overshoot: tuple[float, ...] = (1.0, 1.25, 1.6)
    classes: int | None = None
    steps: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", check.norm(self.norm))
        overshoot = tuple(float(check.number("overshoot", scale, least=1)) for scale in self.overshoot)
        if not overshoot:
            raise ValueError("overshoot: expected at least one scale, got none")
        object.__setattr__(self, "overshoot", overshoot)
        if self.classes is not None:
            check.integer("classes", self.classes, 1)
        check.integer("steps", self.steps, 1)

    @property
    def published(self) -> bool:
        return self == BG(self.norm)

    def run(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        nearest, point = Nearest(problem, self.norm), problem.x
        for _ in range(self.steps):
            point, gap = self.linearised(problem, point)
            nearest.offer(point, gap)
        return nearest.point, nearest.gap

    def length(self, delta: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(delta.flatten(1), self.norm, dim=1)

    def linearised(self, problem: Problem, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(point, gap): the closest point to x that crosses, of the solutions for the network linearised at `at`."""
        x, labels, batch = problem.x, problem.labels, problem.rows
        logits, gradients = problem.logit_gradients(at)
        count = min(self.classes or logits.shape[1] - 1, logits.shape[1] - 1)
        target = logits.scatter(1, labels[:, None], -math.inf).topk(count, dim=1).indices  # [B, J]
        normal = gradients[batch[:, None], target] - gradients[batch, labels][:, None]  # ∇(f_j - f_y), [B, J, D]
        # the distance term of the halfspace of each class: (f_y - f_j)(at) + <∇(f_j - f_y), at - x>, [B, J]
        distance = (logits[batch, labels][:, None] - logits.gather(1, target)).double()
        if at is not x:
            distance = distance + torch.einsum("bjd,bd->bj", normal.double(), (at - x).flatten(1).double())

        # the least offset that counts as a crossing of the linear model's boundary
        scale_of_logits = logits.abs().masked_fill(~logits.isfinite(), 0.0).amax(1).double()
        least = distance + 2 * rounding_tolerance_of(logits) * scale_of_logits[:, None]
        lower, upper = check.flat_box(problem.bounds, x.shape[1:])

        def step(rows: torch.Tensor, j: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            offset = torch.maximum(distance[rows, j] * scale, least[rows, j])
            return ops.halfspace_box_projection(
                x[rows].flatten(1), normal[rows, j], offset, norm=self.norm, lower=lower, upper=upper
            )[0]

        # The plans (class, scale) of each point, from the shortest step on.
        scales = torch.tensor(self.overshoot, dtype=torch.float64, device=x.device)
        rows, every = batch.repeat_interleave(count), torch.arange(count, device=x.device).repeat(x.shape[0])
        lengths = [self.length(step(rows, every, scale.expand(len(rows)))) for scale in scales]
        lengths = torch.stack(lengths, -1).reshape(x.shape[0], count, len(scales))
        # without a gradient, where the step is zero or not finite, there is no plan
        still = (lengths == 0) & (least[:, :, None] > 0)
        problem.mark_flat((~lengths.isfinite()).any(2).any(1) | still.all(2).all(1))
        lengths = lengths.masked_fill(still | ~lengths.isfinite(), math.inf)

        point, gap = x.clone(), ops.logit_gap(logits, labels) if at is x else problem.unknown()

        def evaluate(rows: torch.Tensor, j: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            point[rows] = problem.clamp(x[rows] + step(rows, j, scale).reshape(x[rows].shape))
            there = problem.logits(point[rows], rows)
            gap[rows] = ops.logit_gap(there, labels[rows])
            return there

        active = batch
        if 1.0 in self.overshoot:
            active = self._exactly(active, labels, target, distance, scales, lengths, evaluate, gap)
        lengths, order = lengths.flatten(1).sort(dim=1, stable=True)
        for rank in range(order.shape[1]):
            active = active[lengths[active, rank] < math.inf]
            if not active.numel():
                break
            plan = order[active, rank]
            evaluate(active, plan // len(scales), scales[plan % len(scales)])
            active = active[~(gap[active] < 0)]
        return point, gap

    @staticmethod
    def _exactly(active, labels, target, distance, scales, lengths, evaluate, gap) -> torch.Tensor:
        """Evaluates the nearest class's step of scale 1, which a linear classifier crosses with; returns the rows that
        have not crossed, and sets in `lengths` what is to be tried for them.

        Other classes are not tried at scale 1. Where the secant of the gap to the nearest class puts its crossing
        beyond a scale, that one is tried after all others."""
        one = scales == 1
        shortest, j = lengths[:, :, one].amin(2).min(1)
        lengths[:, :, one] = math.inf
        rows = active[shortest[active] < math.inf]
        if not rows.numel():
            return active
        z = evaluate(rows, j[rows], torch.ones_like(rows, dtype=torch.float64))
        before = distance[rows, j[rows]]
        now = (z.gather(1, labels[rows, None]) - z.gather(1, target[rows, j[rows]][:, None]))[:, 0].double()
        crossing = torch.where(now < before, before / (before - now), math.inf).where(before > 0, 0.0)
        late = scales < crossing[:, None]  # [B, S]
        nearest = lengths[rows, j[rows]]
        last = 2 * lengths[rows].masked_fill(lengths[rows].isinf(), 0.0).amax((1, 2))
        lengths[rows, j[rows]] = torch.where(late, nearest + last[:, None], nearest)
        return active[~(gap[active] < 0)]
