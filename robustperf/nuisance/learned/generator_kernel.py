"""The base of kernels whose G is a network: P(Delta) and the checks of images."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import torch

from robustperf import check
from robustperf.classifier import Classifier
from robustperf.kernel import Kernel, check_shape, constant_bounds
from robustperf.names import check_name
from robustperf.ops.draws import Key, draws_unchecked
from robustperf.ops.program import Shape

if TYPE_CHECKING:
    from robustperf.nuisance.learned.quality import KernelQuality

DISTRIBUTIONS = ("uniform", "normal", "ball")
"""P(Delta): uniform on [-1, 1]^q (R section 7.2), standard normal on R^q (R A.3's prior of the styles), or uniform in
the ball ||delta||_2 <= 1 (Wong and Kolter 2020)."""

IMAGES_AT_ONCE = 64  # on a CPU: the activations of more images do not fit its cache


class GeneratorKernel(Kernel):
    """x' = G(x, delta), delta uniform in [-1, 1]^q or in the unit ball, or standard normal; a subclass has `generate`.

    Args:
        dim: q.
        distribution: one of `DISTRIBUTIONS`.

    Raises ValueError for a wrong argument.
    """

    q: int
    law: str

    def __init__(self, dim: int, distribution: str = "uniform") -> None:
        self.q = check.integer("dim", dim, 1)
        self.law = check_name("distribution", distribution, DISTRIBUTIONS)

    @abstractmethod
    def generate(self, x: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """G(x, delta) [K, B, C', H, W] for x [B, C, H, W] in [0, 1], not empty, and delta [K, B, q]."""

    def transform(self, x: torch.Tensor, delta: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
        if x.device.type == "cpu":
            x = check.images("x", x, (0.0, 1.0))
        if not len(x) or not len(delta):
            return x.new_empty(*delta.shape[:2], *self.shape_after(tuple(x.shape[1:])))
        # within MRT's selection autocast may be on: the images must be those that are trained on
        with torch.autocast(x.device.type, enabled=False):
            return self.generate(x, delta)

    def quality(
        self,
        a: Any,
        b: Any,
        *,
        classifier: Classifier | None = None,
        limit: int = 1000,
        key: int = 0,
        batch_size: int = IMAGES_AT_ONCE,
    ) -> KernelQuality:
        """How well G maps domain A to domain B: see `KernelQuality`.

        Args:
            a, b: the domains, such as held-out images: data sets or images [N, C, H, W], as `learn` takes them.
            classifier: an oracle, trained on both domains with labels, for the labels kept and for the distance
                between its logits; None for neither.
            limit: at most so many images of each domain, evenly spaced.
            key: 64 bits, of the draws of delta.
            batch_size: images in one forward pass.

        Raises TypeError or ValueError for a wrong argument, and for images that G does not take.

        >>> digits = rp.data.load("digits", "test").x[:64]
        >>> shade = rp.nuisance.ModuleKernel(lambda x, delta: x * (0.75 + 0.25 * delta[:, :1, None, None]), dim=1)
        >>> shade.quality(digits, 0.75 * digits).spread > 0
        True
        """
        from robustperf.nuisance.learned.quality import measure

        return measure(self, a, b, classifier=classifier, limit=limit, key=key, batch_size=batch_size)

    @property
    def uniform(self) -> bool:
        return self.law == "uniform"

    @property
    def distribution(self) -> Hashable:
        return {"uniform": ("uniform", -1, 1), "normal": ("normal", 0, 1), "ball": ("l2_ball", 1)}[self.law]

    def dim_for(self, shape: Shape | None) -> int:
        return self.q

    def sample_for(
        self, shape: Shape | None, key: Key, index: torch.Tensor, draws: torch.Tensor, *, backend: str | None = None
    ) -> torch.Tensor:
        q, in_ball = self.dim_for(shape), self.law == "ball"
        drawn = draws_unchecked(key, index, draws, q + in_ball, normal=not self.uniform, backend=backend)
        if not in_ball:
            return 2 * drawn - 1 if self.uniform else drawn
        drawn = drawn.double()
        direction = drawn[..., :q] / drawn[..., :q].norm(dim=-1, keepdim=True).clamp_min(1e-300)
        # the last normal's distribution function is uniform on (0, 1)
        return (direction * torch.special.ndtr(drawn[..., q:]) ** (1 / q)).float()

    def bounds_for(self, shape: Shape | None) -> torch.Tensor:
        return constant_bounds(-math.inf, math.inf, self.q) if self.law == "normal" else constant_bounds(-1, 1, self.q)

    def project(self, delta: torch.Tensor, shape: Shape | None = None) -> torch.Tensor:
        if self.law != "ball":
            return super().project(delta, shape)
        check_shape(delta, self.q)
        return delta / delta.norm(dim=-1, keepdim=True).clamp_min(1)

    def check_delta(self, delta: torch.Tensor, shape: Shape) -> None:
        super().check_delta(check.finite("delta", delta), shape)
        if self.law == "ball" and delta.numel() and (norm := delta.double().norm(dim=-1).max()) > 1 + 1e-5:
            raise ValueError(f"delta: {self!r} expected a norm of at most 1, got {norm:g}")
