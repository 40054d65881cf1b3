"""What kernels share whose delta is uniform numbers."""

from __future__ import annotations

from collections.abc import Hashable

import torch

from robustperf import random
from robustperf.kernel import Kernel, Shape, check_shape
from robustperf.ops.draws import Key

LARGEST = 1 - 2**-24
"""What `random.uniform` draws at most."""


class UniformDelta(Kernel):
    """delta is uniform numbers, Delta = [0, 1)^q; a subclass gives `dim_for` and `transform`."""

    uniform: bool = True
    law: Hashable = ("uniform", 0, 1)

    def sample_for(
        self, shape: Shape | None, key: Key, index: torch.Tensor, draws: torch.Tensor, *, backend: str | None = None
    ) -> torch.Tensor:
        return random.uniform(key, index, draws, self.dim_for(shape), backend=backend)

    def check_delta(self, delta: torch.Tensor, shape: Shape) -> None:
        outside = ~((delta >= 0) & (delta < 1))  # a NaN is outside
        if outside.any():
            raise ValueError(f"delta: expected numbers in [0, 1), got {delta[outside][0]:g}")

    def project(self, delta: torch.Tensor, shape: Shape | None = None) -> torch.Tensor:
        check_shape(delta, self.dim_for(shape))
        return delta.clamp(0, LARGEST)

    def bounds_for(self, shape: Shape | None) -> torch.Tensor:
        return torch.tensor([[0.0], [1.0]], dtype=torch.float64).repeat(1, self.dim_for(shape))
