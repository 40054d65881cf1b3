from __future__ import annotations

from dataclasses import dataclass

import torch

from robustperf import check
from robustperf.attacks.attack import Attack
from robustperf.attacks.losses import per_sample
from robustperf.attacks.problem import Nearest, Problem
from robustperf.attacks.steps import along, closest_boundary, to_hyperplane, unfinished


@dataclass(frozen=True)
class SuperDeepFool(Attack):
    """DeepFool until the label changes, then the projection of x onto the boundary found, in turns. A minimal-norm
    attack in L2 without a step size.

    Abdollahpoorrostam, Abroshan & Moosavi-Dezfooli, "SuperDeepFool: a new fast and accurate minimal adversarial
    attack", NeurIPS 2024 (arXiv 2303.12481, 2023), SDF(∞, 1), algorithm 2. A step of DeepFool (Moosavi-Dezfooli et al.,
    CVPR 2016) goes onto the nearest boundary of the linearised model, and 2 % beyond. Where the label has changed, at
    x̃, x is projected onto the hyperplane through x̃ with the normal w = ∇(z_k - z_y)(x̃) of the new label k:
    x + ⟨x̃ - x, w⟩ w / ‖w‖². A point that has crossed after this projection is finished. The nearest crossing of all
    steps is kept.

    Both are the closest points in the box, which the publication clips to afterwards: the same where the box is
    inactive. Its line search at the end is that of `margins`.

    Args:
        steps: the most linearisations. Each costs one forward pass and a backward pass for each of the classes.
        classes: how many of the other classes, those with the highest logits, DeepFool considers; None for all.
        overshoot: how far a step of DeepFool goes beyond the boundary, a fraction of the step.

    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> found = SuperDeepFool(steps=10)(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0]))
    >>> found
    Adversarial(n=2, crossed=2)
    >>> found.point.sum(1) < 1
    tensor([True, True])
    """

    steps: int = 100
    classes: int | None = None
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        check.integer("steps", self.steps, 1)
        if self.classes is not None:
            check.integer("classes", self.classes, 1)
        check.number("overshoot", self.overshoot, least=0)

    def run(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        nearest = Nearest(problem, 2)
        normal, offset, last, gap = closest_boundary(problem, problem.x, problem.rows, self.classes, 2)
        rows = unfinished(problem, nearest, gap)
        x, point, projected = problem.x[rows], problem.x[rows], torch.zeros_like(rows, dtype=torch.bool)
        normal, offset, last, crossed = normal[rows], offset[rows], last[rows], projected
        for step in range(self.steps):
            # from x for a point that has crossed, from the point for DeepFool
            base = torch.where(per_sample(crossed, x).bool(), x, point)
            w = torch.where(per_sample(crossed, x).bool(), last, normal)
            ahead = (1 + self.overshoot) * (offset - along(normal, point - x))
            distance = torch.where(crossed, along(last, point - x), ahead)
            point, projected = problem.clamp(base + to_hyperplane(problem, base, w, distance, 2)), crossed
            if step == self.steps - 1:
                nearest.offer(point, problem.gap(point, rows), rows)
                break
            normal, offset, last, gap = closest_boundary(problem, point, rows, self.classes, 2)
            nearest.offer(point, gap, rows)
            going = ~(projected & (gap < 0))
            rows, x, point, gap = rows[going], x[going], point[going], gap[going]
            normal, offset, last, crossed = normal[going], offset[going], last[going], gap < 0
            if not len(rows):
                break
        return nearest.point, nearest.gap
