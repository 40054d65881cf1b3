from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from robustperf import check
from robustperf.attacks.attack import Attack
from robustperf.attacks.losses import length
from robustperf.attacks.problem import Nearest, Problem
from robustperf.attacks.steps import cosine, dual, first_gradient, into_ball, offer_step, unit


@dataclass(frozen=True)
class FMN(Attack):
    """The fast minimum-norm attack: gradient steps projected onto a ball whose radius follows the boundary.

    Pintor, Roli, Brendel & Biggio, "Fast minimum-norm adversarial attacks through adaptive norm constraints", NeurIPS
    2021, algorithm 1. Until a point has crossed, the radius ε is its linear estimate ‖δ‖_p + s gap / ‖∇gap‖_q; from
    then on it becomes ε (1 + γ), or min(ε, ‖δ*‖) (1 - γ) where the point has crossed, with δ* the shortest crossing so
    far. δ takes the step α ∇/‖∇‖₂ and is projected onto the ball. α and γ are annealed by a cosine.

    α is a fraction of the box's mean width, in which a value without bounds counts as 1: the publication has images in
    [0, 1]. Different from it, δ is projected onto the ball within the box, where it is projected onto the ball and then
    clipped: the same where the box is inactive. And s is a little above the publication's 1, with which points converge
    to the boundary without a crossing.

    Args:
        norm: 1, 2 or inf.
        steps: how many. They cost `steps` backward passes and one forward pass more.
        step, last_step: α at the first and at the last step. The publication tunes the first for each model and norm,
            from 1 to 10; in L∞ larger ones are better.
        overshoot: s, at least 1.
        gamma, last_gamma: γ at the first and at the last step, in (0, 1).

    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> found = FMN(norm=2, steps=30)(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0]))
    >>> found
    Adversarial(n=2, crossed=2)
    >>> found.point.sum(1) < 1
    tensor([True, True])
    """

    norm: float = 2
    steps: int = 100
    step: float = 1.0
    last_step: float = 0.01
    overshoot: float = 1.02
    gamma: float = 0.05
    last_gamma: float = 0.001

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", check.norm(self.norm))
        check.integer("steps", self.steps, 1)
        for name in ("step", "last_step"):
            check.number(name, getattr(self, name), above=0)
        check.number("overshoot", self.overshoot, least=1)
        for name in ("gamma", "last_gamma"):
            check.number(name, getattr(self, name), above=0, below=1)

    def run(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        nearest = Nearest(problem, self.norm)
        rows, gradient, gap = first_gradient(problem, nearest)
        x, width = problem.x[rows], check.width(problem.bounds, problem.x)
        delta, radius = torch.zeros_like(x), torch.zeros_like(gap)
        for step in range(self.steps):
            best = nearest.distance[rows].double()
            best = best.masked_fill(best.isnan(), math.inf)
            gamma = cosine(self.gamma, self.last_gamma, step, self.steps)
            ahead = self.overshoot * gap / length(gradient, dual(self.norm)).double()
            linear = length(delta, self.norm).double() + ahead
            outwards = torch.where(best.isfinite(), radius * (1 + gamma), linear.masked_fill(linear.isnan(), math.inf))
            radius = torch.where(gap < 0, torch.minimum(radius, best) * (1 - gamma), outwards)
            delta = delta + cosine(self.step, self.last_step, step, self.steps) * width * unit(gradient)
            delta = into_ball(problem, x, delta, radius, self.norm)
            point = x + delta
            gradient, gap = offer_step(problem, nearest, point, rows, last=step == self.steps - 1)
        return nearest.point, nearest.gap
