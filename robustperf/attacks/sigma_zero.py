from __future__ import annotations

from dataclasses import dataclass

import torch

from robustperf import check
from robustperf.attacks.attack import Attack
from robustperf.attacks.losses import per_sample
from robustperf.attacks.problem import Nearest, Problem
from robustperf.attacks.steps import cosine, first_gradient, largest_one, offer_step


@dataclass(frozen=True)
class SigmaZero(Attack):
    """σ-zero: gradient steps on a smooth count of the changed values, and a threshold below which changes are undone. A
    minimal-norm attack in L0, the number of changed values (each channel of a pixel counts on its own).

    Cinà et al., "σ-zero: gradient-based optimization of ℓ0-norm adversarial examples", ICLR 2025, algorithm 1. It
    descends max(gap, 0) + (1/D) Σ_i δ_i² / (δ_i² + σ) with a gradient scaled to a largest component of 1, clips to the
    box, and sets changes smaller than τ to 0. τ grows by t η after a crossing and falls by t η otherwise, within
    [0, 1]. The crossing with the fewest changed values is kept.

    Changes, τ and η are fractions of the box's mean width, in which a value without bounds counts as 1: the publication
    has images in [0, 1]. Different from it, the gradient of the gap is itself scaled to a largest component of 1 before
    the sum, so that the scale of the logits has no effect.

    Args:
        steps: how many. They cost `steps` backward passes and one forward pass more.
        step, last_step: η at the first and at the last step, annealed by a cosine.
        sigma: of the smooth count.
        threshold: the first τ, in [0, 1].
        threshold_step: t.

    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> found = SigmaZero(steps=100)(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0]))
    >>> found
    Adversarial(n=2, crossed=2)
    >>> (found.point != torch.tensor([[0.6, 0.7], [0.9, 0.9]])).sum(1)  # changed values
    tensor([1, 2])
    """

    steps: int = 1000
    step: float = 1.0
    last_step: float = 0.1
    sigma: float = 1e-3
    threshold: float = 0.3
    threshold_step: float = 0.01

    def __post_init__(self) -> None:
        check.integer("steps", self.steps, 1)
        for name in ("step", "last_step", "sigma", "threshold_step"):
            check.number(name, getattr(self, name), above=0)
        check.number("threshold", self.threshold, least=0, most=1)

    def run(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        nearest = Nearest(problem, 0)
        rows, gradient, gap = first_gradient(problem, nearest)
        x, width = problem.x[rows], check.width(problem.bounds, problem.x)
        point, threshold = x, torch.full_like(gap, self.threshold)
        for step in range(self.steps):
            size = cosine(self.step, self.last_step, step, self.steps)
            change = (point - x) / width
            count = 2 * self.sigma * change / (change.square() + self.sigma).square() / max(x[:1].numel(), 1)
            descent = count - per_sample(~(gap < 0), x) * largest_one(gradient)
            moved = problem.clamp(point - size * width * largest_one(descent))
            kept = (moved - x).abs() >= per_sample(threshold, x) * width
            point = torch.where(kept, moved, x)
            gradient, gap = offer_step(problem, nearest, point, rows, last=step == self.steps - 1)
            threshold = (threshold + self.threshold_step * size * torch.where(gap < 0, 1.0, -1.0)).clamp(0, 1)
        return nearest.point, nearest.gap
