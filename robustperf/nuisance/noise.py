"""Noise: delta has a component for each value of the image, so `sample` wants `shape=(C, H, W)`."""

from __future__ import annotations

from robustperf import check
from robustperf.nuisance.program_kernel import ProgramKernel
from robustperf.ops.program import Distribution, Program, Step, Transform


class GaussianNoise(ProgramKernel):
    """clamp(x + delta), delta ~ N(0, std^2).

    Args:
        std: standard deviation, in units of the pixel range.
    """

    def __init__(self, std: float = 0.1) -> None:
        std = check.number("std", std, above=0)
        self.program = Program((Step(Transform.ADD, Distribution.NORMAL, (0.0,), (std,), (1,), "gaussian_noise"),))


class ImpulseNoise(ProgramKernel):
    """Salt and pepper: each value black where delta < share / 2, white where delta >= 1 - share / 2; delta ~ U[0, 1].

    Args:
        share: of the values that are replaced, in (0, 1].
    """

    def __init__(self, share: float = 0.1) -> None:
        share = check.number("share", share, above=0, most=1)
        self.program = Program(
            (Step(Transform.IMPULSE, Distribution.EVERYWHERE, (0.0,), (1.0,), (share,), "impulse_noise"),)
        )


class ShotNoise(ProgramKernel):
    """clamp(n / rate) with n ~ Poisson(rate x), n the quantile of delta ~ U[0, 1]; its gradients are zero.

    Args:
        rate: photons of a white pixel, up to 500; fewer are noisier.
    """

    def __init__(self, rate: float = 25.0) -> None:
        rate = check.number("rate", rate, above=0, most=500)
        self.program = Program((Step(Transform.SHOT, Distribution.EVERYWHERE, (0.0,), (1.0,), (rate,), "shot_noise"),))
