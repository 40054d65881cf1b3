from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from robustperf import check
from robustperf.attacks import PGD, Attack
from robustperf.classifier import Classifier, evaluating, laid_out, without_wrapper
from robustperf.training.objective import Objective, loss_of_drawn


@dataclass(frozen=True)
class AdversarialTraining(Objective):
    """Training on adversarial examples (Madry et al. 2018; R equation 2.2 and the baseline PGD of its experiments).

    mean_j [l(x_adv^(j), y^(j)) + weight l(x^(j), y^(j))], where x_adv is what the attack finds from the true label. The
    model is in eval mode for the attack.

    Args:
        attack: any attack. The default is that of R A.1: PGD in L-infinity with eps 8/255 and 20 steps of 0.01, on the
            cross-entropy. `PGD(2, eps=0.5, steps=20)` is one in L2, on the logit gap.
        weight: lambda, of the clean images' loss; 0 as in Madry et al.

    Raises TypeError where `attack` is none, ValueError for a negative or infinite weight.

    >>> model, data = rp.nets.build("small-cnn", size=8), rp.data.load("digits", "test")
    >>> x, y, index = data.x[:8], data.y[:8], torch.arange(8)
    >>> objective = AdversarialTraining(rp.attacks.PGD(2, eps=0.5, steps=20), weight=1)
    >>> objective(model, x, y, key=rp.random.key(0), index=index).backward()
    """

    attack: Attack = PGD(math.inf, eps=8 / 255, step=0.01, steps=20, loss="cross_entropy")
    weight: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.attack, Attack):
            raise TypeError(f"attack: expected an Attack, got {type(self.attack).__name__}")
        check.number("weight", self.weight, least=0)

    def loss(
        self, model: Classifier, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        inner = without_wrapper(model)
        with evaluating(inner):
            found = self.attack(lambda images: inner(laid_out(inner, images)), x, y, key=key, index=index)
        return loss_of_drawn(model, found.point[None], x, y, self.weight)
