"""Kernels that apply another kernel: `Wrapper`, their base, and `kernel.normalised()`."""

from __future__ import annotations

from collections.abc import Hashable

import torch

from robustperf.kernel import Kernel, constant_bounds
from robustperf.ops.draws import Key, draws_unchecked
from robustperf.ops.program import Shape


class Wrapper(Kernel):
    """A kernel that applies another one, `kernel`, and delegates to it whatever a subclass does not override."""

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
    def distribution(self) -> Hashable:
        return self.kernel.distribution

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
    distribution: Hashable = ("uniform", -1, 1)

    def __init__(self, kernel: Kernel) -> None:
        if not kernel.uniform:
            raise ValueError(
                "kernel: expected one whose delta is uniform between bounds, onto which [-1, 1]^q can be mapped, "
                f"got {kernel!r}"
            )
        self.kernel = kernel

    def sample_for(
        self, shape: Shape | None, key: Key, index: torch.Tensor, draws: torch.Tensor, *, backend: str | None = None
    ) -> torch.Tensor:
        return 2 * draws_unchecked(key, index, draws, self.dim_for(shape), backend=backend) - 1

    def transform(self, x: torch.Tensor, delta: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
        lower, upper = self.kernel.bounds_for(tuple(x.shape[1:])).to(delta)
        # lerp stays within its ends, unlike lower + (upper - lower) t, which may round beyond them
        return self.kernel.transform(x, torch.lerp(lower, upper, (1 + delta) / 2), backend=backend)

    def bounds_for(self, shape: Shape | None) -> torch.Tensor:
        return constant_bounds(-1, 1, self.dim_for(shape))

    # these follow from its own bounds, not from the wrapped kernel

    def check_delta(self, delta: torch.Tensor, shape: Shape) -> None:
        Kernel.check_delta(self, delta, shape)

    def project(self, delta: torch.Tensor, shape: Shape | None = None) -> torch.Tensor:
        return Kernel.project(self, delta, shape)

    def centre_for(self, shape: Shape | None) -> torch.Tensor:
        return Kernel.centre_for(self, shape)

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
