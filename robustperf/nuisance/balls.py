"""Norm balls, x' = x + delta (R equation 4.1; T Example 1): delta has a component for each value of the image, so
`sample` wants `shape=(C, H, W)`."""

from __future__ import annotations

from robustperf import check
from robustperf.nuisance.known import KnownKernel
from robustperf.ops.program import Law, Program, Step, Transform


class L2Ball(KnownKernel):
    """x + delta, delta uniform in the ball ||delta||_2 <= eps.

    Args:
        eps: the radius, in the units of the pixels.
        clamp: to [0, 1]. As printed, x' may leave it.
    """

    def __init__(self, eps: float, clamp: bool = False):
        eps = check.positive("eps", eps)
        self.program = Program((Step(Transform.ADD, Law.BALL, (0.0,), (eps,), (bool(clamp),), "l2_ball"),))


class LinfBall(KnownKernel):
    """x + delta, delta uniform in the cube ||delta||_inf <= eps.

    Args:
        eps: half the cube's side, in the units of the pixels.
        clamp: to [0, 1]. As printed, x' may leave it.
    """

    def __init__(self, eps: float, clamp: bool = False):
        eps = check.positive("eps", eps)
        self.program = Program((Step(Transform.ADD, Law.EVERYWHERE, (-eps,), (eps,), (bool(clamp),), "linf_ball"),))
