from __future__ import annotations

from dataclasses import dataclass

import torch

from robustperf import check
from robustperf.attacks.attack import Adversarial, Attack, check_loss, gap_at, loss_gradient
from robustperf.check import Box
from robustperf.classifier import Classifier

_EPS = 0.25


@dataclass(frozen=True)
class FGSM(Attack):
    """The fast gradient sign method, x' = clip(x + eps sign ∇_x L(f(x), y)).

    Goodfellow, Shlens & Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015, section 4, where L is
    the cross-entropy: `loss="cross_entropy"`.

    Args:
        eps: the step in the L∞ norm, in the units of x. None takes 0.25 of the box's mean width: the paper's 0.25 for
            MNIST in [0, 1]. A value without bounds counts as 1 wide.
        loss: L, "gap", "dlr" or "cross_entropy", see `robustperf.attacks.attack.loss_of`.
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

    def run(
        self, model: Classifier, x: torch.Tensor, labels: torch.Tensor, *, key: int, index: torch.Tensor, bounds: Box
    ) -> Adversarial:
        gradient, _, flat = loss_gradient(model, x, labels, self.loss)
        eps = _EPS * check.width(bounds, x) if self.eps is None else self.eps
        point = (x + eps * gradient.sign()).clamp(*bounds)
        evaluations = torch.full((x.shape[0],), 2, dtype=torch.int64, device=x.device)
        return Adversarial(point, gap_at(model, point, labels), evaluations, flat)
