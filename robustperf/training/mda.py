from __future__ import annotations

from dataclasses import dataclass

import torch

from robustperf import check
from robustperf.classifier import Classifier
from robustperf.kernel import Kernel, check_kernel
from robustperf.training.objective import Objective, loss_of_drawn


@dataclass(frozen=True)
class MDA(Objective):
    """Model-based data augmentation, MDA-k (R section 5.3, Algorithm 4): training on all of k draws.

    mean_j [sum_{i=1..k} l(G(x^(j), delta_i^(j)), y^(j)) + weight l(x^(j), y^(j))], in one forward pass of (k + 1) B
    images.

    Args:
        kernel: G with the distribution of delta.
        k: draws for each sample and step; R uses 3.
        weight: lambda, of the clean images' loss.

    Raises TypeError or ValueError for a wrong argument.

    >>> model, data = rp.nets.build("small-cnn", size=8), rp.data.load("digits", "test")
    >>> x, y, index = data.x[:8], data.y[:8], torch.arange(8)
    >>> objective = MDA(rp.nuisance.Rotation(30), k=3)
    >>> objective(model, x, y, key=rp.random.key(0), index=index).backward()
    """

    kernel: Kernel
    k: int = 3
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_kernel(self.kernel)
        check.integer("k", self.k, 1)
        check.number("weight", self.weight, least=0)

    def loss(
        self, model: Classifier, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        drawn = self.kernel.draw(x, key=key, index=index, draws=self.k)
        return loss_of_drawn(model, drawn, x, y, self.weight)
