from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from robustperf import check, random
from robustperf.attacks.attack import Attack
from robustperf.attacks.losses import length, per_sample
from robustperf.attacks.problem import Nearest, Problem
from robustperf.attacks.steps import along, closest_boundary, to_hyperplane, unfinished


@dataclass(frozen=True)
class FAB(Attack):
    """The fast adaptive boundary attack: steps onto the nearest linearised boundary, drawn towards x. A minimal-norm
    attack without a step size.

    Croce & Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020,
    algorithm 1. A step linearises the model at the current point, projects that point and x onto the nearest linearised
    boundary within the box, goes to the mean of the two with the weight α of the second, and beyond both by the factor
    η. After a crossing, the point moves back towards x by the factor β. The nearest crossing of all steps is kept.

    The weight is α = min(‖δ_i‖ / (‖δ_i‖ + ‖δ_x‖), alpha), with the lengths of the two projections. The publication's
    final search on the segment to x is left out, for `margins` searches the segments of all attacks. Random starts lie
    at half the distance of the nearest crossing; where there is none, at half the distance from x to the boundary of
    the model linearised there, in place of the publication's constant.

    Args:
        norm: 1, 2 or inf.
        steps: how many. Each costs two forward passes and a backward pass for each of the classes.
        classes: how many of the other classes, those with the highest logits, to target; None for all, as published. 1
            is the runner-up alone, at one backward pass a step.
        alpha: the largest weight of the projection of x, in [0, 1].
        eta: the overshoot, at least 1.
        beta: how far a point that has crossed stays from x, in (0, 1).
        restarts: how many runs; the first starts at x, the others at random points.

    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> found = FAB(norm=2, steps=10)(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0]))
    >>> found
    Adversarial(n=2, crossed=2)
    >>> found.point.sum(1) < 1
    tensor([True, True])
    """

    norm: float = 2
    steps: int = 100
    classes: int | None = None
    alpha: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    restarts: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", check.norm(self.norm))
        check.integer("steps", self.steps, 1)
        check.integer("restarts", self.restarts, 1)
        if self.classes is not None:
            check.integer("classes", self.classes, 1)
        check.number("alpha", self.alpha, least=0, most=1)
        check.number("eta", self.eta, least=1)
        check.number("beta", self.beta, above=0, below=1)

    def run(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        nearest = Nearest(problem, self.norm)
        normal, offset, _, gap = closest_boundary(problem, problem.x, problem.rows, self.classes, self.norm)
        rows = unfinished(problem, nearest, gap)
        x, normal, offset = problem.x[rows], normal[rows], offset[rows]
        linear = length(to_hyperplane(problem, x, normal, offset, self.norm), self.norm)
        point = x
        for restart in range(self.restarts):
            if restart:
                point = self.random_point(problem, nearest, rows, linear, restart)
            for step in range(self.steps):
                if restart or step:
                    normal, offset, _, _ = closest_boundary(problem, point, rows, self.classes, self.norm)
                point = self.step_of(problem, x, point, normal, offset)
                gap = problem.gap(point, rows)
                nearest.offer(point, gap, rows)
                back = problem.clamp(x + self.beta * (point - x))
                point = torch.where(per_sample(gap < 0, x).bool(), back, point)
        return nearest.point, nearest.gap

    def step_of(
        self, problem: Problem, x: torch.Tensor, point: torch.Tensor, normal: torch.Tensor, offset: torch.Tensor
    ) -> torch.Tensor:
        """The publication's equation 9, from `point` for the hyperplane {x + δ: ⟨normal, δ⟩ = offset}."""
        of_point = to_hyperplane(problem, point, normal, offset - along(normal, point - x), self.norm)
        of_x = to_hyperplane(problem, x, normal, offset, self.norm)
        near, far = length(of_point, self.norm), length(of_x, self.norm)
        weight = per_sample((near / (near + far).clamp_min(1e-38)).clamp_max(self.alpha), x)
        return problem.clamp((1 - weight) * (point + self.eta * of_point) + weight * (x + self.eta * of_x))

    def random_point(
        self, problem: Problem, nearest: Nearest, rows: torch.Tensor, linear: torch.Tensor, restart: int
    ) -> torch.Tensor:
        """A point at half the distance of the nearest crossing, or of `linear` [M] where there is none."""
        x, key, index = problem.x[rows], random.fold_in(problem.key, restart), problem.index[rows]
        if self.norm == math.inf:
            draw = 2 * random.uniform(key, index, 1, x[:1].numel())[0] - 1
        else:
            draw = random.normal(key, index, 1, x[:1].numel())[0]
        draw = draw.to(x.dtype).view_as(x)
        distance = torch.where(nearest.distance[rows].isfinite(), nearest.distance[rows], linear)
        return problem.clamp(x + per_sample(distance / 2 / length(draw, self.norm).clamp_min(1e-38), x) * draw)
