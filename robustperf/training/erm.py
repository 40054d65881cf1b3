from __future__ import annotations

from dataclasses import dataclass

import torch

from robustperf.classifier import Classifier, laid_out, logits_of
from robustperf.training.objective import Objective, cross_entropies


@dataclass(frozen=True)
class ERM(Objective):
    """Empirical risk minimisation: mean_j l(x^(j), y^(j)) where l is the cross-entropy (R equation 2.1).

    >>> objective = ERM()
    """

    def loss(
        self, model: Classifier, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        return cross_entropies(logits_of(model, laid_out(model, x)), y).mean()
