from __future__ import annotations

from dataclasses import dataclass

import torch

from robustperf import check
from robustperf.attacks.attack import Attack
from robustperf.attacks.losses import check_loss
from robustperf.attacks.problem import Problem

_EPS = 0.25


@dataclass(frozen=True)
class FGSM(Attack):
    """The fast gradient sign method, x' = clip(x + eps sign ∇_x L(f(x), y)).

    Goodfellow, Shlens & Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015, section 4, where L is
    the cross-entropy: `loss="cross_entropy"`.

    Args:
        eps: the step in the L∞ norm, in the units of x. None takes 0.25 of the box's mean width: the paper's 0.25 for
            MNIST in [0, 1]. A value without bounds counts as 1 wide.
        loss: L: "gap", the negative logit gap, whose gradient does not vanish where the model is confident; "dlr", the
            difference of logits ratio; or "cross_entropy".

    >>> model = lambda images: torch.stack([images.sum(1), torch.ones(len(images))], 1)  # label 0 above a sum of 1
    >>> found = FGSM(eps=0.5)(model, torch.tensor([[0.6, 0.7], [0.9, 0.9]]), torch.tensor([0, 0]))
    >>> found
    Adversarial(n=2, crossed=2)
    >>> found.point.sum(1) < 1
    tensor([True, True])
    """

    eps: float | None = None
    loss: str = "gap"

    def __post_init__(self) -> None:
        if self.eps is not None:
            check.number("eps", self.eps, above=0)
        check_loss(self.loss)

    @property
    def published(self) -> bool:
        return self.eps in (None, _EPS)

    def run(self, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
        x = problem.x
        gradient, _ = problem.gradient(x, loss=self.loss)
        eps = _EPS * check.width(problem.bounds, x) if self.eps is None else self.eps
        point = problem.clamp(x + eps * gradient.sign())
        return point, problem.gap(point)
