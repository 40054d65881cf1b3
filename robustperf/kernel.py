"""`Kernel`: a model of natural variation x' = G(x, delta), delta ~ P(Delta) (R section 4), and so a transition
kernel Q(. | x), the distribution of G(x, delta) (T Definition 1): the concept that both papers share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable
from typing import Any

import torch

from robustperf import check, random
from robustperf.equality import same
from robustperf.ops.draws import Key, check_draws
from robustperf.ops.program import Shape


class Kernel(ABC):
    """x' = G(x, delta) with delta drawn from P(Delta).

    Call `sample` for delta, the kernel itself for G(x, delta), and `draw` for both at once. These three check their
    arguments.

    A subclass defines three methods, whose arguments are checked already:

    - `dim_for(shape)`: q, the number of components of delta (`dim` is a property that calls it);
    - `sample_for(shape, key, index, draws)`: delta [K, B, q] float32;
    - `transform(x, delta)`: G(x, delta) [K, B, C', H, W], of x's dtype, for x [B, C, H, W] and delta [K, B, q], both of
      one dtype.

    Take the randomness from `robustperf.random`: then a draw depends on key, sample id and draw index only, not on the
    batch, the chunk, the process or the device. The other methods have defaults. Override

    - `bounds_for` where Delta is a box: `check_delta`, `project`, `centre_for` and `radius_for`, which MAT uses,
      follow from it; `check_delta` and `project` too where Delta is not a box;
    - `uniform` and `distribution` where delta is uniform between these bounds, for `normalised` and shared deltas;
    - `shape_after` where G changes the images' shape;
    - `differentiable_in_delta` and `differentiable_in_x` where G has no such gradient.

    Any generator G(x, delta) becomes a kernel in this way, here one with delta uniform in [-1, 1]^q:

    >>> import torch, robustperf as rp
    >>> class GeneratorKernel(rp.Kernel):
    ...     uniform, distribution = True, ("uniform", -1, 1)
    ...
    ...     def __init__(self, generator, q):
    ...         self.generator, self.q = generator, q
    ...
    ...     def dim_for(self, shape):
    ...         return self.q
    ...
    ...     def bounds_for(self, shape):
    ...         return torch.tensor([[-1.0], [1.0]], dtype=torch.float64).repeat(1, self.q)
    ...
    ...     def sample_for(self, shape, key, index, draws, *, backend=None):
    ...         return 2 * rp.random.uniform(key, index, draws, self.q, backend=backend) - 1
    ...
    ...     def transform(self, x, delta, *, backend=None):
    ...         images = self.generator(x.repeat(len(delta), 1, 1, 1), delta.flatten(0, 1))
    ...         return images.unflatten(0, delta.shape[:2])
    >>> shade = GeneratorKernel(lambda x, delta: x * (0.75 + 0.25 * delta[:, :, None, None]), 1)
    >>> shade.draw(torch.rand(5, 3, 8, 8), key=0, index=torch.arange(5), draws=10).shape
    torch.Size([10, 5, 3, 8, 8])
    """

    differentiable_in_delta: bool = True
    """Whether G(x, delta) has a gradient in at least some components of delta; otherwise it is piecewise constant in
    delta."""

    differentiable_in_x: bool = True
    """The same for x."""

    uniform: bool = False
    """Whether P(Delta) is the uniform distribution between `bounds_for`, so that the kernel can be `normalised`."""

    distribution: Hashable = None
    """P(Delta) as a value that compares equal for equal distributions, None where unknown; used by
    `Compose(..., shared=True)`."""

    ball: tuple[float, float] | None = None
    """(norm, eps) where the support of Q(. | x) is every image of the unit cube within eps of x in this norm and no
    other, as for T's balls, so that rho = 1 follows from the margins; None otherwise."""

    @abstractmethod
    def dim_for(self, shape: Shape | None) -> int:
        """q = dim(Delta) for images of shape (C, H, W). Raises ValueError for a shape that the kernel does not accept,
        and for None where q depends on the shape."""

    @abstractmethod
    def sample_for(
        self, shape: Shape | None, key: Key, index: torch.Tensor, draws: torch.Tensor, *, backend: str | None = None
    ) -> torch.Tensor:
        """delta [K, B, q] float32 for images of this shape, sample ids `index` [B] and draw indices `draws` [K], both
        int64; all checked."""

    @abstractmethod
    def transform(self, x: torch.Tensor, delta: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
        """G(x, delta) [K, B, C', H, W] for x [B, C, H, W] and delta [K, B, q] of x's dtype and device. Shapes, dtypes
        and devices are checked; a kernel for images in [0, 1] checks the pixels itself."""

    def shape_after(self, shape: Shape) -> Shape:
        """The shape of G(x, delta) for images of this shape."""
        return shape

    def defined(self, x: torch.Tensor) -> torch.Tensor:
        """[B] bool, whether Q(. | x) exists for each of the images [B, C, H, W]; `draw` raises ValueError where it does
        not."""
        return torch.ones(len(x), dtype=torch.bool, device=x.device)

    def check_delta(self, delta: torch.Tensor, shape: Shape) -> None:
        """ValueError for values of delta [..., q] outside Delta; called on the CPU only. By default Delta is the box
        `bounds_for`."""
        lower, upper = widened(self.bounds_for(shape), delta.dtype)
        outside = ~((delta >= lower) & (delta <= upper))  # a NaN is outside
        if outside.any():
            place = tuple(outside.nonzero()[0].tolist())
            raise ValueError(
                f"delta: {self!r} expected values in [{lower[place[-1]]:g}, {upper[place[-1]]:g}], got "
                f"{delta[place]:g} in component {place[-1]}"
            )

    def project(self, delta: torch.Tensor, shape: Shape | None = None) -> torch.Tensor:
        """The nearest point of Delta (R Algorithm 3's projection), of delta's shape [..., q], dtype and device. By
        default Delta is the box `bounds_for`."""
        check_shape(delta, self.dim_for(shape))
        return delta.clamp(*widened(self.bounds_for(shape), delta.dtype).to(delta.device))

    def bounds_for(self, shape: Shape | None) -> torch.Tensor:
        """(lower, upper) of each component of Delta, [2, q] float64; -inf and inf where it is unbounded or unknown."""
        return constant_bounds(-math.inf, math.inf, self.dim_for(shape))

    def centre_for(self, shape: Shape | None) -> torch.Tensor:
        """The centre of Delta [q] float64: the middle of each component's range, 0 where it is unbounded. R has
        Delta = [-1, 1]^q throughout (section 7.2), and its delta = 0 is this point."""
        lower, upper = self.bounds_for(shape)
        return torch.where((upper - lower).isfinite(), (lower + upper) / 2, 0.0)

    def radius_for(self, shape: Shape | None) -> torch.Tensor:
        """Half of Delta's width in each component [q] float64, 1 where it is unbounded: the unit of MAT's steps (R
        section 7.2 has Delta = [-1, 1]^q)."""
        lower, upper = self.bounds_for(shape)
        return torch.where((upper - lower).isfinite(), (upper - lower) / 2, 1.0)

    def identity_for(self, shape: Shape | None) -> torch.Tensor:
        """The point of Delta [q] nearest to the delta with G(x, delta) = x, which is 0 unless a subclass overrides
        this."""
        return self.project(torch.zeros(1, self.dim_for(shape), dtype=torch.float64), shape)[0]

    def normalised(self) -> Kernel:
        """This kernel with Delta = [-1, 1]^q, as in R section 7.2: each component of [-1, 1]^q is mapped affinely onto
        its range, so that delta = 0 is the centre.

            brightness = Brightness((0, 5))
            brightness.normalised()(x, delta)                   # brightness(x, 2.5 + 2.5 * delta)

        Raises ValueError for a kernel whose delta is not uniform between bounds: an affine map takes the cube neither
        onto a ball nor onto a normal distribution.
        """
        from robustperf.nuisance.normalised import Normalised  # imports this module

        return Normalised(self)

    @property
    def dim(self) -> int:
        """q = dim(Delta); ValueError where it depends on the images' shape (see `dim_for`)."""
        return self.dim_for(None)

    def sample(
        self,
        key: Key,
        index: torch.Tensor,
        draws: int | torch.Tensor,
        *,
        shape: Shape | None = None,
        backend: str | None = None,
    ) -> torch.Tensor:
        """delta ~ P(Delta), the same for a sample whatever the batch, the order, the chunk or the process.

        Args:
            key: 64 bits (`robustperf.random.key`).
            index: [B] int64 >= 0, the samples' ids in their data set.
            draws: K for the draws 0..K-1, or draw indices [K] int64.
            shape: (C, H, W) of the images, needed where delta has a component for each value of the image.
            backend: "reference", "native", "cuda" or "triton"; None for the fastest one on index's device.

        Returns [K, B, q] float32 on index's device.

        Raises TypeError for a wrong dtype; ValueError for a key, sample id or draw index out of range, a wrong shape or
        device, a missing shape, or a backend that is not available.

            delta = Rotation(30).sample(random.key(0), torch.arange(64), draws=10)      # [10, 64, 1], degrees
        """
        key, draws = check.plain(key), _draw_indices(draws, index)
        check_draws(key, index, draws)
        shape = None if shape is None else check.image_shape("shape", shape)
        return self.sample_for(shape, key, index, draws, backend=backend)

    def __call__(self, x: torch.Tensor, delta: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
        """G(x, delta), with gradients in x and in delta where G has them.

        Args:
            x: [B, C, H, W] float32 or float64 in [0, 1].
            delta: [B, q] or [K, B, q] float32 or float64 in Delta, on x's device.
            backend: "reference", "native", "cuda" or "triton"; None for the fastest one on x's device.

        Returns [B, C', H, W] or [K, B, C', H, W] of x's dtype.

        Raises TypeError for a wrong dtype, ValueError for a wrong shape or device, or values out of range, which are
        checked on the CPU only.
        """
        check.tensor("x", x, ("B", "C", "H", "W"))
        shape = tuple(x.shape[1:])
        check_shape(delta, self.dim_for(shape), x.shape[0], x.device)
        if delta.device.type == "cpu" and not torch.compiler.is_compiling():
            self.check_delta(delta.detach(), shape)
        several = delta.dim() == 3
        out = self.transform(x, (delta if several else delta[None]).to(x.dtype), backend=backend)
        return out if several else out[0]

    def draw(
        self,
        x: torch.Tensor,
        *,
        key: Key,
        index: torch.Tensor,
        draws: int | torch.Tensor = 1,
        out: torch.Tensor | None = None,
        backend: str | None = None,
    ) -> torch.Tensor:
        """`self(x, self.sample(key, index, draws))`, bit for bit.

        Args:
            x: [B, C, H, W] float32 or float64 in [0, 1].
            key: 64 bits (`robustperf.random.key`).
            index: [B] int64 >= 0, the samples' ids in their data set.
            draws: K for the draws 0..K-1, or draw indices [K] int64.
            out: a contiguous tensor of the result's shape, dtype and device that the result is written into, so that a
                loop can reuse its memory; None for a new one.
            backend: "reference", "native", "cuda" or "triton"; None for the fastest one on x's device.

        Returns [K, B, C', H, W] of x's dtype, with gradients in x unless `out` is given.

        Raises TypeError for a wrong dtype; ValueError for a wrong shape or device, a key, sample id, draw index or (on
        the CPU) pixel out of range, or a backend that is not available.

            images = Rotation(30).draw(x, key=random.key(0), index=torch.arange(len(x)), draws=10)
        """
        check.tensor("x", x, ("B", "C", "H", "W"))
        key, draws = check.plain(key), _draw_indices(draws, index)
        check_draws(key, index, draws, batch=x.shape[0], device=x.device)
        return self.draw_for(x, key, index, draws, out=out, backend=backend)

    def __add__(self, other: Kernel) -> Kernel:
        """`Compose([self, other])`: this kernel is applied first."""
        if not isinstance(other, Kernel):
            return NotImplemented
        from robustperf.nuisance.compose import Compose  # imports this module

        return Compose([self, other])

    def __eq__(self, other: object) -> bool:
        """Kernels of one class and with the same parameters are equal."""
        if type(self) is not type(other):
            return NotImplemented
        return same(self._equal_by(), other._equal_by())

    def __hash__(self) -> int:
        return hash(type(self))

    def _equal_by(self) -> dict[str, Any]:
        """What equality compares: all attributes, unless a subclass overrides this."""
        return vars(self)

    def draw_for(
        self,
        x: torch.Tensor,
        key: Key,
        index: torch.Tensor,
        draws: torch.Tensor,
        *,
        out: torch.Tensor | None = None,
        backend: str | None = None,
    ) -> torch.Tensor:
        """`draw` of arguments that are checked, all but `out` and the pixels; a kernel with a fused draw overrides
        it."""
        delta = self.sample_for(tuple(x.shape[1:]), key, index, draws, backend=backend)
        drawn = self.transform(x, delta.to(x.dtype), backend=backend)
        if out is None:
            return drawn
        check.tensor("out", out, tuple(drawn.shape), dtypes=(x.dtype,), device=x.device)
        return out.copy_(drawn.detach())


def _draw_indices(draws: int | torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The draw indices [K], at least one."""
    if not isinstance(draws, torch.Tensor):
        draws = check.integer("draws", draws, 1)
    elif draws.dim() == 1 and not len(draws):
        raise ValueError("draws: expected at least one draw, got none")
    return random.draw_indices(draws, index)


def constant_bounds(lower: float, upper: float, dim: int) -> torch.Tensor:
    """[2, q] float64, the same bounds for each of q components."""
    return torch.tensor([[lower], [upper]], dtype=torch.float64).repeat(1, dim)


def widened(bounds: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bounds [2, q] float64 in `dtype`, each as it is or rounded to float32, whichever is wider: samples are float32,
    and both they and the bounds themselves must be within."""
    lower, upper = bounds
    return torch.stack([torch.minimum(lower, lower.float()), torch.maximum(upper, upper.float())]).to(dtype)


def reaches_delta(parts: Iterable[tuple[bool, bool]]) -> bool:
    """Whether a composition has a gradient in delta, from (differentiable in delta, differentiable in x) of each part
    in order: later parts must be differentiable in x for an earlier part's delta."""
    reached = False
    for in_delta, in_x in parts:
        reached = in_delta or (reached and in_x)
    return reached


def check_kernel(kernel: Kernel) -> None:
    if not isinstance(kernel, Kernel):
        raise TypeError(f"kernel: expected a Kernel, got {type(kernel).__name__}")


def check_shape(delta: torch.Tensor, dim: int, batch: int | str = "B", device: torch.device | None = None) -> None:
    """TypeError or ValueError unless delta is [B, q] or [K, B, q]."""
    draws = ("K",) if isinstance(delta, torch.Tensor) and delta.dim() == 3 else ()
    check.tensor("delta", delta, (*draws, batch, dim), device=device)
