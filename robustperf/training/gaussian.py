from __future__ import annotations

from dataclasses import dataclass

import torch

from robustperf import check
from robustperf.classifier import Classifier
from robustperf.nuisance import GaussianNoise
from robustperf.training.mda import MDA
from robustperf.training.objective import Objective


@dataclass(frozen=True)
class GaussianAugmentation(Objective):
    """Noisy copies beside the clean images (the baseline GAUSS of T section 4): MDA-1 with N(0, sigma^2) noise on each
    value.

    Args:
        sigma: the noise's standard deviation; T uses 0.1.
        weight: of the clean images' loss.
    """

    sigma: float = 0.1
    weight: float = 1.0

    def __post_init__(self) -> None:
        check.number("sigma", self.sigma, above=0)
        check.number("weight", self.weight, least=0)

    def loss(
        self, model: Classifier, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        return MDA(GaussianNoise(self.sigma), 1, self.weight).loss(model, x, y, key=key, index=index)
