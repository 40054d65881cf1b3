"""The pictures, drawn without pyplot: no display is needed, and the caller's backend and figures stay as they are."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from robustperf.files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NORMS = {1: "$L_1$", 2: "$L_2$", math.inf: r"$L_\infty$"}

# Okabe and Ito's colours, which colour-blind readers can tell apart
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]


def margin_curves(curves: Mapping[str, Any], path: str | os.PathLike | None = None, confidence: float = 0.95,
                  norm: float = 2, title: str | None = None) -> Figure:
    """Several margin curves in one picture, after Figure 3 of Tibo et al. 2021.

    The legend gives R, the area under each curve over [0, d], and for how many points no adversarial example was found;
    the shaded band is `MarginCurve.band(confidence)`. The x-axis ends where the last curve has reached its floor.

    Args:
        curves: name -> `robustperf.robustness.curves.MarginCurve`, drawn in this order.
        path: also save the picture there, in the format of the suffix (.png, .pdf, .svg; PNG without one). The file
            appears whole or not at all.
        confidence: of the band, strictly between 0 and 1.
        norm: 1, 2 or inf, the norm that measured the distances.
        title: above the picture.

    Returns a matplotlib Figure that pyplot does not know of.

    Raises:
        TypeError: a value of curves is not a margin curve.
        ValueError: curves are empty, or confidence or norm is none of those above.
        FileNotFoundError: the folder of path does not exist.
    """
    from cycler import cycler

    if not curves:
        raise ValueError("curves must name at least one margin curve, got none")
    for name, curve in curves.items():
        if not hasattr(curve, "band"):
            raise TypeError(f"curves[{name!r}] must be a MarginCurve, got {type(curve).__name__}")
    if norm not in (1, 2, math.inf):
        raise ValueError(f"norm must be 1, 2 or inf, got {norm!r}")

    axes = margin_axes(height=3.7 + 0.2 * len(curves), norm=norm, title=title)
    axes.set_prop_cycle(cycler(linestyle=["-", "--", ":"]) * cycler(color=_COLOURS))
    for name, curve in curves.items():
        draw_margin_curve(axes, curve, label=_legend(name, curve), confidence=confidence)
    cut_at_floor(axes, curves.values())
    # below the axes, where no curve can run under it
    axes.figure.legend(loc="outside lower center", frameon=False, fontsize="small", title_fontsize="small",
                       alignment="left",
                       title=f"R: area under the curve; shaded: {100 * confidence:g} % confidence band")
    if path is not None:
        save(axes.figure, path)
    return axes.figure


def margin_axes(height: float = 4.2, norm: float | None = None, title: str | None = None) -> Axes:
    """Axes labelled for margin curves, alone on a new figure `height` inches high that pyplot does not know of.

    `norm` (1, 2 or inf) is named on the x-axis unless it is None.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(r"distance $\epsilon$" + ("" if norm is None else f" ({_NORMS[norm]})"))
    axes.set_ylabel("share of points with no\n" r"adversarial example within $\epsilon$")
    # a little room, so that lines at 0 and at 1 show in full width
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if title is not None:
        axes.set_title(title)
    return axes


def draw_margin_curve(axes: Axes, curve: Any, *, label: str | None = None, confidence: float | None = 0.95,
                      **kwargs) -> None:
    """Draws one margin curve over [0, d] on `axes` as a step function, with its band unless `confidence` is None.

    `kwargs` go to the line (`Axes.plot`).
    """
    steps = curve.distances[curve.distances < curve.upper]
    eps = torch.cat([steps.new_zeros(1), steps, steps.new_tensor([curve.upper])]).unique()
    (line,) = axes.plot(eps.numpy(), curve.at(eps).numpy(), **{"drawstyle": "steps-post", "label": label, **kwargs})
    if confidence is not None:
        band = curve.band(confidence)
        axes.fill_between(eps.numpy(), band.lower(eps).numpy(), band.upper(eps).numpy(), step="post",
                          color=line.get_color(), alpha=0.15, linewidth=0)


def cut_at_floor(axes: Axes, curves: Iterable[Any]) -> None:
    """Ends the x-axis where the last of `curves` has reached its floor; an axis cut before only grows."""
    curves = list(curves)
    steps = [curve.distances[curve.distances < curve.upper] for curve in curves]
    last = max((each.max().item() for each in steps if len(each)), default=0.0)
    largest = max(curve.upper for curve in curves)
    # curves that are flat from zero on have no better end than d
    right = min(1.05 * last, largest) if last > 0 else largest
    if not axes.get_autoscalex_on():
        right = max(right, axes.get_xlim()[1])
    axes.set_xlim(0, right)


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes `figure` to `path` in the format of its suffix (PNG without one), whole or not at all."""
    with written_whole(path) as partial:
        figure.savefig(partial, format=Path(path).suffix[1:] or "png")


def _legend(name: str, curve: Any) -> str:
    text = f"{name}:  R = {curve.area:#.4g}"
    if curve.missing:
        text += f"  (no adversarial example found: {curve.missing} of {curve.count})"
    return text
