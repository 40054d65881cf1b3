"""Random sizes and tensors: one seed determines them all."""

import math

import numpy as np
import torch


class Random:
    """Random sizes and tensors, all from one seed."""

    def __init__(self, seed: int) -> None:
        self.numpy = np.random.default_rng(seed)
        self.torch = torch.Generator().manual_seed(seed)

    def below(self, n: int) -> int:
        return int(self.numpy.integers(n))

    def chance(self, probability: float) -> bool:
        return self.numpy.random() < probability

    def one(self, values):
        return values[self.below(len(values))]

    def size(self, least: int = 0) -> int:
        """Mostly small; 0 and sizes around the widths of vectors are common."""
        return max(least, self.one((0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65)))

    def real(self, shape, dtype, *, finite=False, unit=False):
        """Numbers in [0, 1] if `unit`; otherwise of any magnitude, with zeros, and infinite and NaN unless `finite`."""
        x = torch.rand(shape, generator=self.torch, dtype=torch.float64)
        if not unit:
            x = (x - 0.5) * 10.0 ** self.one((0, 0, 0, 0, 1, 3, -3, -30, 20))
        if self.chance(0.3):
            x = x.round(decimals=self.one((0, 1, 2)))  # equal values
        x = self.strided(x.to(dtype))
        if not (finite or unit) and x.numel() and self.chance(0.15):
            x = x.clone(memory_format=torch.contiguous_format)
            x.view(-1)[self.below(x.numel())] = self.one((math.nan, math.inf, -math.inf))
        return x

    def integers(self, shape, high, low=0):
        return self.strided(torch.randint(low, high, shape, generator=self.torch))

    def strided(self, x):
        """The same values in another memory layout."""
        way = self.below(8)
        if way == 0 and x.dim() > 1:
            return x.transpose(0, -1).contiguous().transpose(0, -1)
        if way == 1 and x.dim():
            return torch.stack([x, x], -1)[..., 1]
        if way == 2 and x.numel():
            return torch.cat([x.flatten()[:1], x.flatten()])[1:].view(x.shape)
        if way == 3 and x.dim() and len(x):
            return x[:1].expand_as(x)
        return x
