from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from robustperf import check
from robustperf.classifier import Classifier, laid_out, logits_of
from robustperf.nuisance import AugMix as AugMixKernel
from robustperf.training.objective import Objective, cross_entropies


@dataclass(frozen=True)
class AugMix(Objective):
    """AugMix with its Jensen-Shannon consistency loss (Hendrycks et al. 2020, section 3; a baseline of R).

    mean_j [l(x^(j), y^(j)) + weight JS(p(x^(j)), p(x_1^(j)), p(x_2^(j)))], where x_1 and x_2 are two draws of
    `robustperf.nuisance.AugMix`, p is the softmax and JS the mean of the three Kullback-Leibler divergences from the
    mean distribution. It takes one forward pass of 3 B images.

    Args:
        weight: of the divergence; 12 in their experiments.
        kernel: the augmentation.

    Raises ValueError for a weight that is not above 0, TypeError for another kernel.

    >>> model, data = rp.nets.build("small-cnn", size=8), rp.data.load("digits", "test")
    >>> x, y, index = data.x[:8], data.y[:8], torch.arange(8)
    >>> objective = AugMix(weight=12, kernel=rp.nuisance.AugMix(severity=3))
    >>> objective(model, x, y, key=rp.random.key(0), index=index).backward()
    """

    weight: float = 12.0
    kernel: AugMixKernel = field(default_factory=AugMixKernel)

    def __post_init__(self) -> None:
        check.number("weight", self.weight, above=0)
        if not isinstance(self.kernel, AugMixKernel):
            raise TypeError(f"kernel: expected nuisance.AugMix, got {type(self.kernel).__name__}")

    def loss(
        self, model: Classifier, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        drawn = self.kernel.draw(x, key=key, index=index, draws=2)
        logits = logits_of(model, laid_out(model, torch.cat([x, *drawn])))
        clean = cross_entropies(logits[: len(x)], y)[0]
        log_p = logits.to(clean.dtype).log_softmax(1).unflatten(0, (3, len(x)))
        log_mean = log_p.logsumexp(0) - math.log(3)
        divergence = (log_p.exp() * (log_p - log_mean)).sum(2).mean(0)
        return (clean + self.weight * divergence).mean()
