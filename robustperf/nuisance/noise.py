"""Noise: delta has a component for each value of the image, so `sample` needs `shape=(C, H, W)`."""

from __future__ import annotations

from robustperf import check
from robustperf.nuisance.program_kernel import ProgramKernel
from robustperf.ops.program import Distribution, Program, Step, Transform


class GaussianNoise(ProgramKernel):
    """clamp(x + delta), delta ~ N(0, std^2).

    Args:
        std: standard deviation, in units of the pixel range [0, 1].

    Raises ValueError unless std is above 0 and finite.

    >>> x = torch.full((1000, 1, 1, 1), 0.5)
    >>> y = GaussianNoise(0.1).draw(x, key=0, index=torch.arange(1000), draws=1)
    >>> abs(y.std().item() - 0.1) < 0.01
    True
    """

    def __init__(self, std: float = 0.1) -> None:
        std = check.number("std", std, above=0)
        self.program: Program = Program(
            (Step(Transform.ADD, Distribution.NORMAL, (0.0,), (std,), (1,), "gaussian_noise"),)
        )


class ImpulseNoise(ProgramKernel):
    """Salt and pepper: a value becomes 0 where delta < fraction / 2 and 1 where delta >= 1 - fraction / 2; delta ~
    U[0, 1).

    Args:
        fraction: the probability that a value is replaced, in (0, 1].

    Raises ValueError for another fraction.

    >>> x = torch.full((1000, 1, 1, 1), 0.5)
    >>> y = ImpulseNoise(0.2).draw(x, key=0, index=torch.arange(1000), draws=1)
    >>> abs((y != 0.5).double().mean().item() - 0.2) < 0.05
    True
    """

    def __init__(self, fraction: float = 0.1) -> None:
        fraction = check.number("fraction", fraction, above=0, most=1)
        self.program: Program = Program(
            (Step(Transform.IMPULSE, Distribution.EVERYWHERE, (0.0,), (1.0,), (fraction,), "impulse_noise"),)
        )


class ShotNoise(ProgramKernel):
    """clamp(n / rate) with n ~ Poisson(rate x), the quantile function at delta ~ U[0, 1); its gradients are zero.

    Args:
        rate: expected photons of a white pixel, in (0, 500]; a lower rate is noisier.

    Raises ValueError for another rate.

    >>> ShotNoise(25).draw(torch.rand(2, 1, 8, 8), key=0, index=torch.arange(2), draws=5).shape
    torch.Size([5, 2, 1, 8, 8])
    """

    def __init__(self, rate: float = 25.0) -> None:
        rate = check.number("rate", rate, above=0, most=500)
        self.program: Program = Program(
            (Step(Transform.SHOT, Distribution.EVERYWHERE, (0.0,), (1.0,), (rate,), "shot_noise"),)
        )
