"""Norm balls, x' = x + delta (R equation 4.1; T Example 1): delta has a component for each value of the image, so
`sample` needs `shape=(C, H, W)`.

As printed in R, x' may leave the unit cube of images: near its faces most x + delta are no images, and a classifier
that is constant in the cube need not be so there. T's balls are subsets of the cube (section 2). With `clamp=True` x'
stays in the cube. Its support is then T's ball, every x' of the cube within eps of x and no other, but x' is not
uniform in it: the mass outside the cube is moved to its faces. Where the support alone matters, as for H = certain,
this is T's ball.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import partial

import torch

from robustperf import check
from robustperf.family import Family
from robustperf.kernel import Kernel, check_shape, constant_bounds
from robustperf.nuisance.program_kernel import ProgramKernel
from robustperf.ops.draws import Key, draws_unchecked
from robustperf.ops.program import Distribution, Program, Shape, Step, Transform


class L2Ball(ProgramKernel):
    """x + delta, delta uniform in the ball ||delta||_2 <= eps.

    Args:
        eps: the radius, in units of the pixels, above 0.
        clamp: whether x' is clamped to [0, 1].

    Raises ValueError for another eps.

    >>> x = torch.full((4, 1, 2, 2), 0.5)
    >>> y = L2Ball(0.3).draw(x, key=0, index=torch.arange(4), draws=5)
    >>> ((y - x).flatten(2).norm(2, dim=2) <= 0.3 + 1e-6).all()
    tensor(True)
    """

    def __init__(self, eps: float, clamp: bool = False) -> None:
        eps = check.number("eps", eps, above=0)
        self.program: Program = Program(
            (Step(Transform.ADD, Distribution.BALL, (0.0,), (eps,), (bool(clamp),), "l2_ball"),)
        )


class LinfBall(ProgramKernel):
    """x + delta, delta uniform in the cube ||delta||_inf <= eps.

    Args:
        eps: half the cube's side, in units of the pixels, above 0.
        clamp: whether x' is clamped to [0, 1].

    Raises ValueError for another eps.

    >>> x = torch.full((4, 1, 2, 2), 0.5)
    >>> y = LinfBall(0.3).draw(x, key=0, index=torch.arange(4), draws=5)
    >>> ((y - x).flatten(2).norm(float("inf"), dim=2) <= 0.3 + 1e-6).all()
    tensor(True)
    """

    def __init__(self, eps: float, clamp: bool = False) -> None:
        eps = check.number("eps", eps, above=0)
        self.program: Program = Program(
            (Step(Transform.ADD, Distribution.EVERYWHERE, (-eps,), (eps,), (bool(clamp),), "linf_ball"),)
        )


class L1Ball(Kernel):
    """x + delta, delta uniform in the cross-polytope ||delta||_1 <= eps.

    delta = eps l / (|l_1| + ... + |l_q| + e) with l_i standard Laplace and e standard exponential (Barthe, Guedon,
    Mendelson and Naor 2005): one random word for each component, and one for e.

    Args:
        eps: the radius, in units of the pixels, above 0.
        clamp: whether x' is clamped to [0, 1].

    Raises ValueError for another eps; when called, for pixels outside [0, 1], on a GPU unchecked.

    >>> x = torch.full((4, 1, 2, 2), 0.5)
    >>> y = L1Ball(0.3).draw(x, key=0, index=torch.arange(4), draws=5)
    >>> ((y - x).flatten(2).norm(1, dim=2) <= 0.3 + 1e-6).all()
    tensor(True)
    """

    eps: float
    clamp: bool

    def __init__(self, eps: float, clamp: bool = False) -> None:
        self.eps, self.clamp = check.number("eps", eps, above=0), bool(clamp)

    @property
    def distribution(self) -> Hashable:
        return "l1_ball", self.eps

    @property
    def ball(self) -> tuple[float, float] | None:
        return (1.0, float(self.eps)) if self.clamp else None

    def dim_for(self, shape: Shape | None) -> int:
        if shape is None:
            raise ValueError(
                "shape: l1_ball has a component of delta for each value of the image: expected (C, H, W), got None"
            )
        return math.prod(shape)

    def sample_for(
        self, shape: Shape | None, key: Key, index: torch.Tensor, draws: torch.Tensor, *, backend: str | None = None
    ) -> torch.Tensor:
        uniforms = draws_unchecked(key, index, draws, self.dim_for(shape) + 1, backend=backend).double()
        signed = 2 * uniforms - (1 - 2**-24)  # symmetric, and never 0
        size = -signed.abs().log()
        return (self.eps * size * signed.sign() / size.sum(2, keepdim=True))[..., :-1].float()

    def transform(self, x: torch.Tensor, delta: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            x = check.images("x", x, (0.0, 1.0))
        moved = x + delta.unflatten(2, x.shape[1:])
        return moved.clamp(0, 1) if self.clamp else moved

    def check_delta(self, delta: torch.Tensor, shape: Shape) -> None:
        norm = delta.double().abs().sum(-1)
        if not (norm <= self.eps * (1 + 1e-5)).all():  # a NaN is outside
            raise ValueError(f"delta: l1_ball expected a norm of at most {self.eps:g}, got {norm.max():g}")

    def project(self, delta: torch.Tensor, shape: Shape | None = None) -> torch.Tensor:
        check_shape(delta, self.dim_for(shape))
        # soft thresholding that reduces the norm to eps (Duchi, Shalev-Shwartz, Singer and Chandra 2008)
        size = delta.double().abs()
        above = size.sort(-1, descending=True).values
        thresholds = (above.cumsum(-1) - self.eps) / torch.arange(1, size.shape[-1] + 1, device=delta.device)
        count = (above > thresholds).sum(-1, keepdim=True).clamp_min(1)
        threshold = thresholds.gather(-1, count - 1).clamp_min(0)
        return (delta.sign() * (size - threshold).clamp_min(0)).to(delta.dtype)

    def bounds_for(self, shape: Shape | None) -> torch.Tensor:
        return constant_bounds(-self.eps, self.eps, self.dim_for(shape))

    def __repr__(self) -> str:
        return f"l1_ball({self.eps}{', clamp=True' if self.clamp else ''})"


BALLS: dict[float, Callable[..., Kernel]] = {1.0: L1Ball, 2.0: L2Ball, math.inf: LinfBall}


def ball_family(upper: float, norm: float = 2, clamp: bool = True) -> Family:
    """T's Q_[0,d]: the balls of radius eps, eps uniform in [0, upper] (Example 2).

    Args:
        upper: d, such as sqrt(m), the diameter of the unit cube of m pixels in L2.
        norm: 1, 2 or inf.
        clamp: whether x' is clamped to [0, 1], the unit cube, of which T's balls are subsets.

    Raises ValueError for another norm, or upper not above 0.

        score = Score(ball_family(math.sqrt(28 * 28)))

    >>> family = ball_family(1.0)  # L2 balls of radius 0 to 1
    >>> family.at(torch.tensor([0.5]))
    l2_ball(0.5, clamp=True)
    """
    ball = BALLS[check.norm(norm)]
    return Family(partial(ball, clamp=clamp), (0, check.number("upper", upper, above=0)))
