from __future__ import annotations

from dataclasses import dataclass

from robustperf.classifier import laid_out, logits_of
from robustperf.training.objective import Objective, cross_entropies


@dataclass(frozen=True)
class ERM(Objective):
    """Empirical risk minimisation: mean_j l(x^(j), y^(j)) with l the cross-entropy (R equation 2.1)."""

    def loss(self, model, x, y, *, key, index):
        return cross_entropies(logits_of(model, laid_out(model, x)), y).mean()
