"""Margin curves, the area under them, and confidence bands of both (Tibo et al. 2021, Example 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from robustperf import check, plot
from robustperf.result import Result
from robustperf.robustness.confidence import half_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Distances = TypeVar("Distances", float, torch.Tensor, np.ndarray)
"""A distance or an array of them; a result of the same kind."""


@dataclass(frozen=True, eq=False, repr=False)
class MarginCurve(Result):
    """The fraction of points without an adversarial example at distance <= ε, as a function of ε.

    The empirical R_{Q_ε,1,p} of Tibo et al. 2021, Example 3, from the margins m_1..m_N of N points:

        at(ε) = #{i : m_i > ε} / N,        R = ∫_0^d at(ε) dε = (1/N) Σ_i min(m_i, d).

    Margins from attacks are distances to adversarial examples that were *found*, so they bound the true margins from
    above, and so do the curve and R (section 3.2). Create one with `from_margins`.

    Attributes:
        distances: [N] float64 on the CPU, ascending, in the units of the norm that measured them; inf where no
            adversarial example was found. Such a point counts as a margin of at least d.
        upper: d, where the integral ends; the diameter of the input space, √m for the L2 norm on [0, 1]^m.
        notes: what makes the margins doubtful, as short captions for a figure.

    >>> curve = MarginCurve.from_margins([0.1, 0.4, 0.2], upper=1.0)
    >>> curve.at(0.2), curve
    (0.3333333333333333, MarginCurve(n=3, area=0.233, median=0.2, not found=0))
    """

    distances: torch.Tensor
    upper: float
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "distances", _checked_distances(self.distances))
        object.__setattr__(self, "upper", _checked_upper(self.upper))

    @classmethod
    def from_margins(cls, margins: Any, upper: float | None = None) -> MarginCurve:
        """The curve of `margins`.

        Args:
            margins: [N] distances >= 0, in any order, a tensor or array of any real dtype (inf = no adversarial example
                was found); or an object with such a tensor as `.distance` and the diameter of its space as `.diameter`,
                such as `Margins`, whose points without a label (distance NaN) are left out, and whose diagnostics
                become the notes.
            upper: d, the end of the integral, finite and above zero. None takes `margins.diameter`; in an infinite
                box it must be given.

        Raises:
            TypeError: margins or upper are not real numbers.
            ValueError: margins are empty, not one-dimensional, NaN or negative, or all of them are left out; upper is
                not finite and positive, or is None where margins have no `.diameter`.
        """
        distances = getattr(margins, "distance", margins)
        diagnostics = getattr(margins, "diagnostics", None)
        if diagnostics is not None and diagnostics.undefined:
            distances = distances[~distances.isnan()]
            if not len(distances):
                raise ValueError(f"margins: expected points with a label, got NaN logits at all {diagnostics.points}")
        if upper is None:
            upper = getattr(margins, "diameter", None)
        if upper is None:
            raise ValueError(
                "upper: expected the largest distance in the input space, for margins without a .diameter, got None "
                f"beside margins of type {type(margins).__name__}"
            )
        return cls(distances, upper, () if diagnostics is None else diagnostics.captions)

    @property
    def count(self) -> int:
        """N, the number of points."""
        return self.distances.numel()

    @property
    def missing(self) -> int:
        """The number of points for which no adversarial example was found (margin inf)."""
        return int(self.distances.isinf().sum())

    @property
    def clipped(self) -> int:
        """The number of finite margins above `upper`; R counts them as `upper`."""
        return int((self.distances > self.upper).sum()) - self.missing

    @property
    def area(self) -> float:
        """R, the area under the curve over [0, d] = the mean of min(margin, d); exact, no grid."""
        return self.distances.clamp(max=self.upper).mean().item()

    @property
    def median(self) -> float:
        """The smallest ε at which at(ε) <= 1/2; inf when no example was found for more than half of the points.

        For an even N this is the lower of the two middle margins (as in `torch.median`), not their mean.
        """
        return self.distances[(self.count - 1) // 2].item()

    def at(self, eps: Distances) -> Distances:
        """The fraction of points with margin > eps, that is with no adversarial example at distance <= eps.

        Args:
            eps: distances >= 0: a number, or a tensor or array of any shape.

        Returns a float, or float64 of eps's shape (a NumPy array for an array, otherwise a tensor on eps's device).
        Raises ValueError if eps is NaN or negative.
        """
        return _level(self, eps, shift=0.0)

    def band(self, confidence: float = 0.95) -> Band:
        """The band that covers the population's curve with probability >= `confidence`, simultaneously at all ε.

        Dvoretzky-Kiefer-Wolfowitz with Massart's constant: P(sup_ε |at(ε) - truth(ε)| > t) <= 2 exp(-2 N t²), for
        points drawn independently. It does not cover how far attacks overestimate margins.

        Raises ValueError unless 0 < confidence < 1.
        """
        return Band(self, float(confidence), half_width(self.count, confidence))

    def plot(self, ax: Axes | None = None, label: str | None = None, band: bool = True, **kwargs: Any) -> Axes:
        """Draws the curve as a step function and returns the axes; None draws on a new figure (`axes.figure`).

        Args:
            ax: matplotlib axes. Their x-axis ends where the curves reach their lowest level, not at d.
            label: for the legend.
            band: shade the 95 % band.
            kwargs: for the line, as in `Axes.plot`.
        """
        axes = plot.margin_axes() if ax is None else ax
        plot.draw_margin_curve(axes, self, label=label, confidence=0.95 if band else None, **kwargs)
        plot.cut_at_floor(axes, [self])
        return axes

    def _facts(self) -> dict[str, Any]:
        return {"n": self.count, "area": self.area, "median": self.median, "not found": self.missing}

    def _repr_html_(self) -> str:
        return plot.as_html(self.plot().figure) + super()._repr_html_()


@dataclass(frozen=True, eq=False, repr=False)
class Band(Result):
    """A simultaneous confidence band, at(ε) ± half_width clipped to [0, 1], of a margin curve; from `MarginCurve.band`.

    Attributes:
        curve: the curve in the middle.
        confidence: the least probability with which the band covers the population's curve.
        half_width: sqrt(log(2 / (1 - confidence)) / (2 N)), from the Dvoretzky-Kiefer-Wolfowitz inequality.

    >>> curve = rp.MarginCurve.from_margins([0.1, 0.4, 0.2], upper=1.0)
    >>> band = curve.band(0.95)
    >>> band.lower(0.2) <= curve.at(0.2) <= band.upper(0.2)
    True
    """

    curve: MarginCurve
    confidence: float
    half_width: float

    def lower(self, eps: Distances) -> Distances:
        """The band's lower curve at eps, a number or a tensor of distances; as large as eps, in [0, 1]."""
        return _level(self.curve, eps, shift=-self.half_width)

    def upper(self, eps: Distances) -> Distances:
        """The band's upper curve at eps, a number or a tensor of distances; as large as eps, in [0, 1]."""
        return _level(self.curve, eps, shift=self.half_width)

    @property
    def area(self) -> tuple[float, float]:
        """(low, high): the areas under the lower and the upper curve over [0, d], which R lies between; exact."""
        return self._area_below(-self.half_width), self._area_below(self.half_width)

    def _facts(self) -> dict[str, Any]:
        return {"confidence": self.confidence, "half width": self.half_width, "area": self.area}

    def _area_below(self, shift: float) -> float:
        count, end = self.curve.count, torch.tensor([self.curve.upper], dtype=torch.float64)
        # between the i-th and the next margin the curve is (N - i) / N
        widths = torch.cat([self.curve.distances.clamp(max=self.curve.upper), end]).diff(prepend=torch.zeros_like(end))
        levels = torch.arange(count, -1, -1, dtype=torch.float64) / count
        return torch.dot(widths, (levels + shift).clamp(0, 1)).item()


def _level(curve: MarginCurve, eps: Any, shift: float) -> Any:
    """at(eps) + shift, clipped to [0, 1], in the kind of container that eps came in."""
    values = _real("eps", eps)
    wrong = ~(values >= 0)
    if wrong.any():
        raise ValueError(f"eps: expected distances >= 0, got {values[wrong][0].item()}")
    within = torch.searchsorted(curve.distances, values.contiguous(), right=True)
    level = ((curve.count - within).double() / curve.count + shift).clamp(0, 1)
    if isinstance(eps, np.ndarray):
        return level.numpy()
    if isinstance(eps, torch.Tensor):
        return level.to(eps.device)
    return level if level.dim() else level.item()


def _checked_distances(margins) -> torch.Tensor:
    """[N] float64 on the CPU, ascending: a copy, so that a later change of `margins` does not change the curve."""
    values = _real("margins", margins)
    if values.dim() != 1 or values.numel() == 0:
        raise ValueError(f"margins: expected shape [N] with N >= 1, got {list(values.shape)}")
    wrong = ~(values >= 0)
    if wrong.any():
        place = int(wrong.nonzero()[0])
        raise ValueError(
            "margins: expected distances >= 0 (inf where no adversarial example was found), "
            f"got {values[place].item()} at position {place}"
        )
    return values.sort().values


def _real(name: str, value) -> torch.Tensor:
    """`value` as a float64 tensor on the CPU; a list's floats never pass through float32."""
    try:
        tensor = value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value, order="C"))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected real numbers, a tensor or an array, got {type(value).__name__}") from error
    if tensor.dtype == torch.bool or tensor.is_complex():
        raise TypeError(f"{name}: expected real numbers, got dtype {tensor.dtype}")
    return tensor.detach().cpu().double()


def _checked_upper(upper) -> float:
    """d as a float, finite and above zero."""
    try:
        value = float(upper)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"upper: expected a number, the largest distance in the input space, got {upper!r}") from error
    return check.number("upper", value, above=0)
