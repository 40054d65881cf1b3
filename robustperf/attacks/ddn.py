from __future__ import annotations

from dataclasses import dataclass

import torch

from robustperf import check
from robustperf.attacks.attack import Attack
from robustperf.attacks.losses import check_loss, length, per_sample
from robustperf.attacks.problem import Nearest, Problem
from robustperf.attacks.steps import cosine, first_gradient, offer_step, unit


@dataclass(frozen=True)
class DDN(Attack):
    """Decoupled direction and norm: gradient steps on a sphere around x that shrinks after a crossing and grows
    otherwise. A minimal-norm attack in L2.

    Rony et al., "Decoupling direction and norm for efficient gradient-based L2 adversarial attacks and defenses", CVPR
    2019, algorithm 1. The step α ∇/‖∇‖₂ is added to δ, the radius ε becomes ε (1 - γ) where the point has crossed and
    ε (1 + γ) where not, and δ is scaled to it and clipped to the box. The nearest crossing of all steps is kept.

    As published, the first ε is 1, γ is 0.05, and α falls from 1 to 0.01 by a cosine, in boxes of width 1: lengths are
    fractions of the box's mean width, in which a value without bounds counts as 1. Different from the publication, the
    loss is the logit gap, which does not depend on the scale of the logits and does not underflow
    (`loss="cross_entropy"` is theirs), and points are not rounded to 8 bits.

    Args:
        steps: how many. They cost `steps` backward passes and one forward pass more.
        radius: the first ε, a fraction of the box's width.
        gamma: how fast ε changes, in (0, 1).
        step, last_step: α at the first and at the last step, fractions of the box's width.
        loss: "gap", the negative logit gap, whose gradient does not vanish where the model is confident; "dlr", the
            difference of logits ratio; or "cross_entropy".

    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> found = DDN(steps=30)(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0]))
    >>> found
    Adversarial(n=2, crossed=2)
    >>> found.point.sum(1) < 1
    tensor([True, True])
    """

    steps: int = 100
    radius: float = 1.0
    gamma: float = 0.05
    step: float = 1.0
    last_step: float = 0.01
    loss: str = "gap"

    def __post_init__(self) -> None:
        check.integer("steps", self.steps, 1)
        for name in ("radius", "step", "last_step"):
            check.number(name, getattr(self, name), above=0)
        check.number("gamma", self.gamma, above=0, below=1)
        check_loss(self.loss)

    def run(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        nearest = Nearest(problem, 2)
        rows, gradient, gap = first_gradient(problem, nearest, self.loss)
        x, width = problem.x[rows], check.width(problem.bounds, problem.x)
        delta, radius = torch.zeros_like(x), torch.full_like(gap, self.radius * width)
        for step in range(self.steps):
            delta = delta + cosine(self.step, self.last_step, step, self.steps) * width * unit(gradient)
            radius = torch.where(gap < 0, radius * (1 - self.gamma), radius * (1 + self.gamma))
            point = problem.clamp(x + per_sample(radius / length(delta, 2).clamp_min(1e-38), x) * delta)
            delta = point - x
            gradient, gap = offer_step(problem, nearest, point, rows, last=step == self.steps - 1, loss=self.loss)
        return nearest.point, nearest.gap
