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
    """Training on clean images and noisy copies (the baseline GAUSS of T section 4): MDA-1 with N(0, sigma^2) noise on
    each value, clamped to [0, 1].

    Args:
        sigma: standard deviation of the noise, in units of the pixels' range; T uses 0.1.
        weight: lambda, of the clean images' loss.

    Raises ValueError for a wrong argument.

    >>> model, data = rp.nets.build("small-cnn", size=8), rp.data.load("digits", "test")
    >>> x, y, index = data.x[:8], data.y[:8], torch.arange(8)
    >>> GaussianAugmentation(sigma=0.1)(model, x, y, key=rp.random.key(0), index=index).backward()
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
