from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from robustperf import check, ops
from robustperf.attacks.attack import Attack
from robustperf.attacks.losses import length, per_sample
from robustperf.attacks.problem import Nearest, Problem
from robustperf.attacks.steps import dual, first_gradient, offer_step


@dataclass(frozen=True)
class PDPGD(Attack):
    """Primal-dual proximal gradient descent: gradient steps on the logit gap, proximal steps on the norm, and a weight
    between the two that follows the crossings. A minimal-norm attack.

    Matyasko & Chau, "PDPGD: primal-dual proximal gradient descent adversarial attack", 2021 (arXiv 2106.01538). It
    seeks the saddle point of λ_d ‖δ‖_p + λ_c max(gap(x + δ), 0) with λ_d + λ_c = 1. The primal player takes the
    gradient step v = δ - η λ_c ∇max(gap, 0) and then the proximal step argmin_u η λ_d ‖u‖_p + ‖u - v‖² / 2, which is
    soft thresholding in L1, shrinking in L2, and v minus its projection onto the L1 ball in L∞. The dual player
    multiplies λ_d / λ_c by e^ν after a crossing and divides it by e^ν otherwise; the primal player sees a moving
    average of the weights. η and ν fall exponentially. The nearest crossing of all steps is kept.

    Different from the publication, the gap is divided by ‖∇gap(x)‖_q, so that both terms are distances in L_p and the
    scale of the logits has no effect, and the step is preconditioned with one number for an image, the root mean square
    of the gradient, instead of one for each value: the proximal steps are then exact.

    Args:
        norm: 1, 2 or inf.
        steps: how many. They cost `steps` backward passes and one forward pass more.
        step: the first η, a fraction of the box's mean width, in which a value without bounds counts as 1.
        step_decay: the last η as a fraction of the first.
        ratio: the first λ_d / λ_c.
        dual_step: the first ν.
        dual_step_decay: the last ν as a fraction of the first.
        average: the weight of the past in the moving average, in [0, 1).

    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> found = PDPGD(norm=2, steps=100)(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0]))
    >>> found
    Adversarial(n=2, crossed=2)
    >>> found.point.sum(1) < 1
    tensor([True, True])
    """

    norm: float = 2
    steps: int = 500
    step: float = 0.1
    step_decay: float = 0.01
    ratio: float = 0.01
    dual_step: float = 0.1
    dual_step_decay: float = 0.1
    average: float = 0.9

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", check.norm(self.norm))
        check.integer("steps", self.steps, 1)
        for name in ("step", "ratio", "dual_step"):
            check.number(name, getattr(self, name), above=0)
        for name in ("step_decay", "dual_step_decay"):
            check.number(name, getattr(self, name), above=0, most=1)
        check.number("average", self.average, least=0, below=1)

    def run(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        nearest = Nearest(problem, self.norm)
        rows, gradient, gap = first_gradient(problem, nearest)
        x, width = problem.x[rows], check.width(problem.bounds, problem.x)
        unit_of_gap = length(gradient, dual(self.norm)).double()
        delta, log_ratio = torch.zeros_like(x), torch.full_like(gap, math.log(self.ratio))
        weight = torch.sigmoid(log_ratio)  # λ_d, averaged
        for step in range(self.steps):
            passed = step / max(self.steps - 1, 1)
            size = self.step * width * self.step_decay**passed
            rms = length(gradient, 2).double() / math.sqrt(max(x[:1].numel(), 1))
            # η λ_c ∇max(gap, 0) / rms, and the threshold of the norm in the same metric
            push = (size * (1 - weight) / rms.clamp_min(1e-38)).masked_fill(gap < 0, 0.0)
            delta = delta + per_sample(push, x) * gradient
            delta = self.proximal(delta, (size * weight * unit_of_gap / rms).nan_to_num(0.0, posinf=0.0))
            point = problem.clamp(x + delta)
            delta = point - x
            gradient, gap = offer_step(problem, nearest, point, rows, last=step == self.steps - 1)
            change = self.dual_step * self.dual_step_decay**passed
            log_ratio = torch.where(gap < 0, log_ratio + change, log_ratio - change)
            weight = self.average * weight + (1 - self.average) * torch.sigmoid(log_ratio)
        return nearest.point, nearest.gap

    def proximal(self, delta: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        """argmin_u t ‖u‖_p + ‖u - δ‖² / 2 for δ [M, ...] and t [M]."""
        t = per_sample(threshold, delta)
        if self.norm == 1:
            return delta.sign() * (delta.abs() - t).clamp_min(0)
        if self.norm == 2:
            return delta * per_sample((1 - threshold / length(delta, 2).clamp_min(1e-38)).clamp_min(0), delta)
        nowhere = torch.zeros_like(delta)
        return delta - ops.ball_box_projection(nowhere, delta, threshold, norm=1, lower=-math.inf, upper=math.inf)
