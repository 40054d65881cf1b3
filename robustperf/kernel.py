"""`Kernel`: a model of natural variation x' = G(x, delta), delta ~ P(Delta) (R section 4), which is a transition kernel
Q(. | x) (T Definition 1): the concept that both papers share."""

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

    A subclass defines `dim_for`, `sample_for` and `transform`; the rest has defaults. Its randomness comes from
    `robustperf.random`, so that a draw depends only on key, sample id and draw index.
    """

    differentiable_in_delta: bool = True
    """Whether G(x, delta) has a gradient in at least some components of delta; otherwise it is piecewise constant in
    delta."""

    differentiable_in_x: bool = True
    """The same for x."""

    uniform: bool = False
    """Whether P(Delta) is the uniform distribution between `bounds_for`, so that the kernel can be `normalised`."""

    law: Hashable = None
    """P(Delta) as a value that compares equal for equal distributions, None where unknown; used by
    `Compose(..., shared=True)`."""

    ball: tuple[float, float] | None = None
    """(norm, eps) where Q(. | x) reaches every image of the unit cube within eps of x in this norm and no other, as T's
    balls do, so that rho = 1 follows from the margins; None otherwise."""

    @abstractmethod
    def dim_for(self, shape: Shape | None) -> int:
        """q = dim(Delta) for images [C, H, W]; ValueError for a shape that the kernel cannot take, and for None where
        q depends on the shape."""

    @abstractmethod
    def sample_for(
        self, shape: Shape | None, key: Key, index: torch.Tensor, draws: torch.Tensor, *, backend: str | None = None
    ) -> torch.Tensor:
        """`sample` for images of this shape and draw indices [K]."""

    @abstractmethod
    def transform(self, x: torch.Tensor, delta: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
        """G(x, delta) [K, B, C', H, W] for x [B, C, H, W] and delta [K, B, q], both checked."""

    def shape_after(self, shape: Shape) -> Shape:
        """The shape of G(x, delta) for images of this shape."""
        return shape

    def defined(self, x: torch.Tensor) -> torch.Tensor:
        """[B] bool, where Q(. | x) exists for images [B, C, H, W]; `draw` is an error elsewhere."""
        return torch.ones(len(x), dtype=torch.bool, device=x.device)

    def check_delta(self, delta: torch.Tensor, shape: Shape) -> None:
        """ValueError for values of delta outside Delta; called on the CPU only. By default Delta is all of R^q."""
        return

    def project(self, delta: torch.Tensor, shape: Shape | None = None) -> torch.Tensor:
        """The nearest point of Delta (R Algorithm 3's projection), of delta's shape."""
        return delta

    def bounds_for(self, shape: Shape | None) -> torch.Tensor:
        """(lower, upper) of each component of Delta, [2, q] float64; -inf and inf where it is unbounded or unknown."""
        ends = torch.tensor([[-math.inf], [math.inf]], dtype=torch.float64)
        return ends.repeat(1, self.dim_for(shape))

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
        """The point of Delta [q] nearest to the delta of the identity, which is 0 unless a subclass overrides
        this."""
        return self.project(torch.zeros(1, self.dim_for(shape), dtype=torch.float64), shape)[0]

    def normalised(self) -> Kernel:
        """This kernel with Delta = [-1, 1]^q, as R has it: each component is mapped affinely onto its range, so that
        delta = 0 is the centre.

            brightness = Brightness((0, 5))
            brightness.normalised()(x, delta)                   # brightness(x, 2.5 + 2.5 * delta)

        Raises ValueError for a kernel whose delta is not uniform between bounds: an affine map takes the cube neither
        onto a ball nor onto a normal distribution.
        """
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
            key: 64 bits, see `robustperf.random`.
            index: [B] int64 >= 0, the samples' ids in their data set.
            draws: K for the draws 0..K-1, or draw indices [K] int64.
            shape: [C, H, W] of the images, where the kernel has a component for each value of the image.

        Returns [K, B, q] float32 on index's device.

        Raises TypeError for a wrong dtype, ValueError for a wrong number, shape or device, or a missing shape.
        """
        key, draws = check.plain(key), _draw_indices(draws, index)
        check_draws(key, index, draws)
        shape = None if shape is None else check.image_shape("shape", shape)
        return self.sample_for(shape, key, index, draws, backend=backend)

    def __call__(self, x: torch.Tensor, delta: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
        """G(x, delta), with gradients in x and in delta where G has them.

        Args:
            x: [B, C, H, W] float32 or float64 in [0, 1].
            delta: [B, q] or [K, B, q] float32 or float64 in Delta.

        Returns [B, C', H, W] or [K, B, C', H, W] of x's dtype.

        Raises TypeError for a wrong dtype, ValueError for a wrong shape or device, or values out of range.
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

        Arguments as in `sample` and `__call__`. The result is written into `out`, contiguous and of the result's
        shape and dtype, if given: a loop can reuse its memory.

        Returns [K, B, C', H, W] of x's dtype, with gradients in x unless `out` is given.
        """
        check.tensor("x", x, ("B", "C", "H", "W"))
        key, draws = check.plain(key), _draw_indices(draws, index)
        check.tensor("index", index, (x.shape[0],), dtypes=(torch.int64,), device=x.device)
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
        """`draw` with checked arguments; a kernel with a fused draw overrides it."""
        check_draws(key, index, draws)
        delta = self.sample_for(tuple(x.shape[1:]), key, index, draws, backend=backend)
        drawn = self.transform(x, delta.to(x.dtype), backend=backend)
        if out is None:
            return drawn
        check.tensor("out", out, tuple(drawn.shape), dtypes=(x.dtype,), device=x.device)
        return out.copy_(drawn.detach())


class Wrapper(Kernel):
    """A kernel that applies another one, `kernel`. What a subclass does not override is that kernel's."""

    kernel: Kernel

    @property
    def differentiable_in_delta(self) -> bool:
        return self.kernel.differentiable_in_delta

    @property
    def differentiable_in_x(self) -> bool:
        return self.kernel.differentiable_in_x

    @property
    def uniform(self) -> bool:
        return self.kernel.uniform

    @property
    def law(self) -> Hashable:
        return self.kernel.law

    def dim_for(self, shape: Shape | None) -> int:
        return self.kernel.dim_for(shape)

    def sample_for(
        self, shape: Shape | None, key: Key, index: torch.Tensor, draws: torch.Tensor, *, backend: str | None = None
    ) -> torch.Tensor:
        return self.kernel.sample_for(shape, key, index, draws, backend=backend)

    def shape_after(self, shape: Shape) -> Shape:
        return self.kernel.shape_after(shape)

    def defined(self, x: torch.Tensor) -> torch.Tensor:
        return self.kernel.defined(x)

    def check_delta(self, delta: torch.Tensor, shape: Shape) -> None:
        self.kernel.check_delta(delta, shape)

    def project(self, delta: torch.Tensor, shape: Shape | None = None) -> torch.Tensor:
        return self.kernel.project(delta, shape)

    def bounds_for(self, shape: Shape | None) -> torch.Tensor:
        return self.kernel.bounds_for(shape)

    def centre_for(self, shape: Shape | None) -> torch.Tensor:
        return self.kernel.centre_for(shape)

    def radius_for(self, shape: Shape | None) -> torch.Tensor:
        return self.kernel.radius_for(shape)

    def identity_for(self, shape: Shape | None) -> torch.Tensor:
        return self.kernel.identity_for(shape)


class Normalised(Wrapper):
    """`kernel.normalised()`: the same kernel with delta in [-1, 1]^q."""

    uniform: bool = True
    law: Hashable = ("uniform", -1, 1)

    def __init__(self, kernel: Kernel) -> None:
        if not kernel.uniform:
            raise ValueError(
                "kernel: expected one whose delta is uniform between bounds, for [-1, 1]^q to be "
                f"mapped onto, got {kernel!r}"
            )
        self.kernel = kernel

    def sample_for(
        self, shape: Shape | None, key: Key, index: torch.Tensor, draws: torch.Tensor, *, backend: str | None = None
    ) -> torch.Tensor:
        return 2 * random.uniform(key, index, draws, self.dim_for(shape), backend=backend) - 1

    def transform(self, x: torch.Tensor, delta: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
        lower, upper = self.kernel.bounds_for(tuple(x.shape[1:])).to(delta)
        # lerp stays within its ends, unlike lower + (upper - lower) t, which may round beyond them
        return self.kernel.transform(x, torch.lerp(lower, upper, (1 + delta) / 2), backend=backend)

    def check_delta(self, delta: torch.Tensor, shape: Shape) -> None:
        outside = ~(delta.abs() <= 1)  # a NaN is outside
        if outside.any():
            raise ValueError(f"delta: {self!r} expected numbers in [-1, 1], got {delta[outside][0]:g}")

    def project(self, delta: torch.Tensor, shape: Shape | None = None) -> torch.Tensor:
        check_shape(delta, self.dim_for(shape))
        return delta.clamp(-1, 1)

    def bounds_for(self, shape: Shape | None) -> torch.Tensor:
        return torch.tensor([[-1.0], [1.0]], dtype=torch.float64).repeat(1, self.dim_for(shape))

    def centre_for(self, shape: Shape | None) -> torch.Tensor:
        return Kernel.centre_for(self, shape)  # of its own bounds, not the wrapped kernel's

    def radius_for(self, shape: Shape | None) -> torch.Tensor:
        return Kernel.radius_for(self, shape)

    def identity_for(self, shape: Shape | None) -> torch.Tensor:
        offset = self.kernel.identity_for(shape).double() - self.kernel.centre_for(shape)
        radius = self.kernel.radius_for(shape)
        return (offset / radius.where(radius > 0, 1.0)).clamp(-1, 1)  # a component may be fixed

    def normalised(self) -> Kernel:
        return self

    def __repr__(self) -> str:
        text = repr(self.kernel)
        return f"({text}).normalised()" if " + " in text else f"{text}.normalised()"


def _draw_indices(draws: int | torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The draw indices [K], at least one."""
    if not isinstance(draws, torch.Tensor):
        draws = check.integer("draws", draws, 1)
    elif draws.dim() == 1 and not len(draws):
        raise ValueError("draws: expected at least one draw, got none")
    return random.draw_indices(draws, index)


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
