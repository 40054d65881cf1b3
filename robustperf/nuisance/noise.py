"""Noise: delta has a component for each value of the image, so `sample` needs `shape=(C, H, W)`."""

from __future__ import annotations

from robustperf import check
from robustperf.nuisance.program_kernel import ProgramKernel
from robustperf.ops.program import Law, Program, Step, Transform


class GaussianNoise(ProgramKernel):
    """clamp(x + delta), delta ~ N(0, std^2).

    Args:
        std: standard deviation, in units of the pixel range [0, 1].

    Raises ValueError unless std is above 0 and finite.
    """

    def __init__(self, std: float = 0.1):
        std = check.positive("std", std)
        self.program = Program((Step(Transform.ADD, Law.NORMAL, (0.0,), (std,), (1,), "gaussian_noise"),))


class ImpulseNoise(ProgramKernel):
    """Salt and pepper: a value becomes 0 where delta < fraction / 2 and 1 where delta >= 1 - fraction / 2; delta ~
    U[0, 1).

    Args:
        fraction: the probability that a value is replaced, in (0, 1].

    Raises ValueError for another fraction.
    """

    def __init__(self, fraction: float = 0.1):
        fraction = check.positive("fraction", fraction)
        if fraction > 1:
            raise ValueError(f"fraction: expected a number in (0, 1], got {fraction!r}")
        self.program = Program((Step(Transform.IMPULSE, Law.EVERYWHERE, (0.0,), (1.0,), (fraction,), "impulse_noise"),))


class ShotNoise(ProgramKernel):
    """clamp(n / rate) with n ~ Poisson(rate x), the quantile function at delta ~ U[0, 1); its gradients are zero.

    Args:
        rate: expected photons of a white pixel, in (0, 500]; a lower rate is noisier.

    Raises ValueError for another rate.
    """

    def __init__(self, rate: float = 25.0):
        rate = check.positive("rate", rate)
        if rate > 500:
            raise ValueError(f"rate: expected a number in (0, 500], got {rate!r}")
        self.program = Program((Step(Transform.SHOT, Law.EVERYWHERE, (0.0,), (1.0,), (rate,), "shot_noise"),))
