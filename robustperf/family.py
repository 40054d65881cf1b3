"""`Family`: kernels Q_lambda with a probability distribution over lambda (T Definition 4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from robustperf import random
from robustperf.equality import same
from robustperf.kernel import Kernel

Density = Callable[[torch.Tensor], torch.Tensor]

# draws that estimate the integral of a density of several variables: as many as its standard error needs
_CHECKED = (2**14, 2**17, 2**20)
_MAX_ERROR = 0.02


class Family:
    """Kernels Q_lambda, lambda in a box A of R^k, with a density q over A (T Definition 4).

    Args:
        kernel: makes Q_lambda from the k components of lambda, inside A: `L2Ball`, or
            `lambda angle, shift: Compose([Rotation(angle), Translation(shift)])`.
        ranges: (lower, upper) of each of them.
        density: q, a function of lambda [L, k] float64 that gives [L] float64; None for the uniform one. It is
            integrated when the family is created: for k = 1 by adaptive quadrature, which misses a peak much narrower
            than the range; otherwise by 16,384 uniform draws, or up to 1,048,576 until five standard errors of the
            integral are below 0.02. A density that needs more draws is refused; a smaller box helps.

    Raises TypeError for another type, ValueError for an empty or infinite range, or a density that is negative, not
    finite, does not integrate to one, or whose integral these draws do not determine.

    >>> from robustperf.nuisance import L2Ball
    >>> Family(L2Ball, (0.0, 2.0)).at(torch.tensor([0.5]))
    l2_ball(0.5)
    """

    kernel: Callable[..., Kernel]
    density: Density | None
    lower: torch.Tensor
    upper: torch.Tensor

    def __init__(
        self, kernel: Callable[..., Kernel], *ranges: tuple[float, float], density: Density | None = None
    ) -> None:
        if isinstance(kernel, Kernel) or not callable(kernel):  # a kernel can be called, with images
            raise TypeError(f"kernel: expected a function that makes a kernel, got {type(kernel).__name__}")
        self.kernel, self.density = kernel, density
        if not ranges:
            raise ValueError("ranges: expected one or more, got none")
        box = []
        for bounds in ranges:
            try:
                lower, upper = map(float, bounds)
            except (TypeError, ValueError):
                raise TypeError(f"ranges: expected pairs (lower, upper), got {bounds!r}") from None
            if not (lower < upper and math.isfinite(upper - lower)):
                raise ValueError(f"ranges: expected finite lower < upper, got {bounds!r}")
            box.append((lower, upper))
        self.lower, self.upper = torch.tensor(box, dtype=torch.float64).T
        if density is not None:
            self._check_density()

    @property
    def dim(self) -> int:
        """k."""
        return len(self.lower)

    @property
    def volume(self) -> float:
        """The volume of A."""
        return (self.upper - self.lower).prod().item()

    def at(self, lam: torch.Tensor) -> Kernel:
        """Q_lambda for lambda [k]; TypeError where `kernel` returns something else."""
        made = self.kernel(*lam.tolist())
        if not isinstance(made, Kernel):
            raise TypeError(
                f"kernel: expected a function that makes a kernel, got one that makes {type(made).__name__}"
            )
        return made

    def density_at(self, lam: torch.Tensor) -> torch.Tensor:
        """q(lambda) [L] float64 for lambda [L, k]. Raises as the class."""
        if self.density is None:
            return torch.full((len(lam),), 1 / self.volume, dtype=torch.float64)
        values = torch.as_tensor(self.density(lam), dtype=torch.float64)
        if values.shape != (len(lam),):
            raise ValueError(f"density: expected shape [{len(lam)}], got {list(values.shape)}")
        wrong = ~((values >= 0) & values.isfinite())
        if wrong.any():
            raise ValueError(
                f"density: expected finite numbers >= 0, got {values[wrong][0]:g} at {lam[wrong][0].tolist()}"
            )
        return values

    def nodes(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(lambda [L, 1], weights [L]) of the Gauss-Legendre rule on A, for k = 1: sum_l weights_l f(lambda_l) is
        the integral of f."""
        nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(count))
        half = (self.upper - self.lower) / 2
        return (self.lower + half * (nodes + 1))[:, None], weights * half

    def draws(self, count: int, key: int) -> torch.Tensor:
        """lambda [L, k], uniform in A."""
        # the midpoints of the cells that the random words distinguish: never on the border
        words = random.uniform(key, torch.arange(count), 1, self.dim)[0].double() + 2**-25
        return self.lower + (self.upper - self.lower) * words

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return same(vars(self), vars(other))

    def __hash__(self) -> int:
        return hash((type(self), self.dim))

    def __repr__(self) -> str:
        kernel = self.kernel.func if isinstance(self.kernel, partial) else self.kernel
        name = getattr(kernel, "__name__", repr(kernel))
        ranges = ", ".join(f"({low:g}, {high:g})" for low, high in zip(self.lower, self.upper, strict=True))
        return f"Family({name}, {ranges}{'' if self.density is None else f', density={self.density!r}'})"

    def _check_density(self):
        if self.dim == 1:
            from scipy.integrate import quad

            def one(value):
                return self.density_at(torch.tensor([[value]], dtype=torch.float64)).item()

            total, error = quad(one, self.lower.item(), self.upper.item(), limit=200)
        else:
            for count in _CHECKED:
                values = self.density_at(self.draws(count, 0)) * self.volume
                total, error = values.mean().item(), 5 * values.std().item() / math.sqrt(count)
                if error < _MAX_ERROR:
                    break
            else:
                raise ValueError(
                    f"density: expected one whose integral {count:,} draws determine, got {total:.3g} +- "
                    f"{error:.2g}; a smaller box around it may help"
                )
        if abs(total - 1) > 1e-3 + error:
            raise ValueError(f"density: expected an integral of 1 over the ranges, got {total:.4g}")
