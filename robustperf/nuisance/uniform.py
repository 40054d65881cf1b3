"""The base of kernels whose delta is uniform in [0, 1)^q."""

from __future__ import annotations

from collections.abc import Hashable

import torch

from robustperf.kernel import Kernel, check_shape, constant_bounds
from robustperf.ops.draws import Key, draws_unchecked
from robustperf.ops.program import Shape

LARGEST = 1 - 2**-24
"""The largest value that `random.uniform` draws."""


class UniformDelta(Kernel):
    """delta is uniform in Delta = [0, 1)^q; a subclass defines `dim_for` and `transform`."""

    uniform: bool = True
    distribution: Hashable = ("uniform", 0, 1)

    def sample_for(
        self, shape: Shape | None, key: Key, index: torch.Tensor, draws: torch.Tensor, *, backend: str | None = None
    ) -> torch.Tensor:
        return draws_unchecked(key, index, draws, self.dim_for(shape), backend=backend)

    def check_delta(self, delta: torch.Tensor, shape: Shape) -> None:
        outside = ~((delta >= 0) & (delta < 1))  # a NaN is outside
        if outside.any():
            raise ValueError(f"delta: expected values in [0, 1), got {delta[outside][0]:g}")

    def project(self, delta: torch.Tensor, shape: Shape | None = None) -> torch.Tensor:
        check_shape(delta, self.dim_for(shape))
        return delta.clamp(0, LARGEST)

    def bounds_for(self, shape: Shape | None) -> torch.Tensor:
        return constant_bounds(0, 1, self.dim_for(shape))
