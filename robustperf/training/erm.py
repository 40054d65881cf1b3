from __future__ import annotations

from dataclasses import dataclass

import torch

from robustperf.classifier import Classifier, laid_out, logits_of
from robustperf.training.objective import Objective, cross_entropies


@dataclass(frozen=True)
class ERM(Objective):
    """Empirical risk minimisation: mean_j l(x^(j), y^(j)) where l is the cross-entropy (R equation 2.1).

    >>> model, data = rp.nets.build("small-cnn", size=8), rp.data.load("digits", "test")
    >>> x, y, index = data.x[:8], data.y[:8], torch.arange(8)
    >>> ERM()(model, x, y, key=rp.random.key(0), index=index).backward()
    """

    def loss(
        self, model: Classifier, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        return cross_entropies(logits_of(model, laid_out(model, x)), y).mean()
