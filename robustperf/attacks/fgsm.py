from __future__ import annotations

from dataclasses import dataclass

import torch

from robustperf import check
from robustperf.attacks.attack import Adversarial, Attack, gap_at, loss_gradient


@dataclass(frozen=True)
class FGSM(Attack):
    """The fast gradient sign method, x' = clip(x + eps sign ∇_x CE(f(x), y)).

    Goodfellow, Shlens & Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015, section 4.

    Args:
        eps: the step in the L∞ norm, in the units of x. The default, 0.25, is the paper's for MNIST in [0, 1].
    """

    eps: float = 0.25

    def __post_init__(self):
        check.positive("eps", self.eps)

    def run(self, model, x, labels, *, key, index, bounds) -> Adversarial:
        gradient, _ = loss_gradient(model, x, labels)
        point = (x + self.eps * gradient.sign()).clamp(*bounds)
        evaluations = torch.full((x.shape[0],), 2, dtype=torch.int64, device=x.device)
        return Adversarial(point, gap_at(model, point, labels), evaluations)
