"""Margin curves and the curves of a training run."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from robustperf import check
from robustperf.plot.figure import COLOURS, LITERAL, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NORMS = {0: "$L_0$", 1: "$L_1$", 2: "$L_2$", math.inf: r"$L_\infty$"}


def margin_curves(
    curves: Mapping[str, Any],
    path: str | os.PathLike[str] | None = None,
    confidence: float = 0.95,
    norm: float = 2,
    title: str | None = None,
) -> Figure:
    """Several margin curves in one figure, after Figure 3 of Tibo et al. 2021.

    The legend gives R, the area under each curve over [0, d], the number of points without an adversarial example, and
    other caveats (`MarginCurve.notes`). The shaded band is `MarginCurve.band(confidence)`. The x-axis ends where the
    last curve reaches its lowest level.

    Args:
        curves: name -> `robustperf.robustness.margin_curve.MarginCurve`, drawn in this order.
        path: also save the figure there, atomically, in the format of the suffix (.png, .pdf, .svg; PNG without
            one).
        confidence: of the band, in (0, 1).
        norm: 0, 1, 2 or inf, the norm that the distances are measured in.
        title: above the figure.

    Returns a matplotlib Figure that pyplot does not manage.

    Raises:
        TypeError: a value of `curves` is not a margin curve.
        ValueError: `curves` is empty, or `confidence` or `norm` is out of range.
        FileNotFoundError: the folder of `path` does not exist.

    >>> plain, robust = (rp.MarginCurve.from_margins(margins, 1.0) for margins in ([0.1, 0.2], [0.3, 0.4]))
    >>> figure = margin_curves({"ERM": plain, "MRT": robust}, "margins.png")
    """
    if not isinstance(curves, Mapping):
        raise TypeError(
            "curves: expected a mapping from names to MarginCurves, such as {'model': curve}, got "
            f"{type(curves).__name__}"
        )
    if not curves:
        raise ValueError("curves: expected at least one margin curve, got none")
    for name, curve in curves.items():
        if not hasattr(curve, "band"):
            raise TypeError(f"curves[{name!r}]: expected a MarginCurve, got {type(curve).__name__}")
    norm = check.norm(norm, zero=True)

    from cycler import cycler

    lines = sum(1 + len(curve.notes) for curve in curves.values())
    axes = margin_axes(height=3.7 + 0.2 * lines, norm=norm, title=title)
    axes.set_prop_cycle(cycler(linestyle=["-", "--", ":"]) * cycler(color=COLOURS))
    for name, curve in curves.items():
        draw_margin_curve(axes, curve, label=name, confidence=confidence)
    cut_at_floor(axes, curves.values())
    # below the axes, so that it covers no curve
    legend = axes.figure.legend(
        axes.lines,
        [" "] * len(curves),
        loc="outside lower center",
        frameon=False,
        fontsize="small",
        title_fontsize="small",
        alignment="left",
        title=f"R: area under the curve; shaded: {100 * confidence:g} % confidence band",
    )
    for text, (name, curve) in zip(legend.get_texts(), curves.items(), strict=True):
        text.set(text=_legend(name, curve), **LITERAL)  # matplotlib leaves out labels that begin with _
    if path is not None:
        save(axes.figure, path)
    return axes.figure


def training_curves(
    epochs: Sequence[Mapping[str, float]],
    path: str | os.PathLike[str] | None = None,
    best: int | None = None,
    title: str | None = None,
) -> Figure:
    """Loss and accuracy over the epochs of a training run, side by side.

    Args:
        epochs: one row per epoch, as in `robustperf.training.Fitted.epochs`: epoch, loss, accuracy and, with a
            validation set, validation_loss and validation_accuracy.
        path: also save the figure there, atomically, in the format of the suffix (.png, .pdf, .svg; PNG without
            one).
        best: the epoch to mark, whose weights were kept.
        title: above the figure.

    Returns a matplotlib Figure that pyplot does not manage.

    Raises ValueError if there are no epochs, FileNotFoundError if the folder of `path` does not exist.

    >>> epochs = [{"epoch": 1, "loss": 2.1, "accuracy": 0.4}, {"epoch": 2, "loss": 1.2, "accuracy": 0.7}]
    >>> training_curves(epochs, best=2).axes[0].get_ylabel()
    'loss'
    """
    if not epochs:
        raise ValueError("epochs: expected at least one, got none")
    figure = new_figure(8.0, 3.4, layout="constrained")
    for axes, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.set_prop_cycle(color=COLOURS)
        for name, column in (("training", what), ("validation", f"validation_{what}")):
            if column in epochs[0]:
                axes.plot([row["epoch"] for row in epochs], [row[column] for row in epochs], ".-", label=name)
        if best is not None:
            axes.axvline(best, color="0.6", linestyle=":", linewidth=1, label=f"kept: epoch {best}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(what)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    if title is not None:
        figure.suptitle(textwrap.fill(title, 100), fontsize="medium", **LITERAL)
    if path is not None:
        save(figure, path)
    return figure


def margin_axes(height: float = 4.2, norm: float | None = None, title: str | None = None) -> Axes:
    """Axes labelled for margin curves, the only ones of a new figure, which pyplot does not manage.

    Args:
        height: of the figure, in inches.
        norm: 0, 1, 2 or inf, named on the x-axis; None for no name.
        title: above the axes.

    >>> margin_axes(norm=2, title="MNIST").get_title()
    'MNIST'
    """
    axes = new_figure(6.4, height, layout="constrained").add_subplot()
    axes.set_xlabel(r"distance $\epsilon$" + ("" if norm is None else f" ({_NORMS[norm]})"))
    axes.set_ylabel("fraction of points with no\n" r"adversarial example within $\epsilon$")
    # some room, so that lines at 0 and 1 show at full width
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if title is not None:
        axes.set_title(title, **LITERAL)
    return axes


def draw_margin_curve(
    axes: Axes, curve: Any, *, label: str | None = None, confidence: float | None = 0.95, **kwargs: Any
) -> None:
    """Draws one margin curve over [0, d] on `axes` as a step function, with its band unless `confidence` is None.

    `kwargs` go to the line (`Axes.plot`).

    >>> curve = rp.MarginCurve.from_margins([0.1, 0.4, 0.2], upper=1.0)
    >>> axes = margin_axes(norm=2)
    >>> draw_margin_curve(axes, curve, label="model", linestyle="--")
    >>> len(axes.lines)
    1
    """
    steps = curve.distances[curve.distances < curve.upper]
    eps = torch.cat([steps.new_zeros(1), steps, steps.new_tensor([curve.upper])]).unique()
    (line,) = axes.plot(eps.numpy(), curve.at(eps).numpy(), **{"drawstyle": "steps-post", "label": label, **kwargs})
    if confidence is not None:
        band = curve.band(confidence)
        axes.fill_between(
            eps.numpy(),
            band.lower(eps).numpy(),
            band.upper(eps).numpy(),
            step="post",
            color=line.get_color(),
            alpha=0.15,
            linewidth=0,
        )


def cut_at_floor(axes: Axes, curves: Iterable[Any]) -> None:
    """Ends the x-axis where the last of `curves` reaches its lowest level; never shortens an axis cut before.

    >>> curve = rp.MarginCurve.from_margins([0.1, 0.4, 0.2], upper=1.0)
    >>> axes = margin_axes()
    >>> draw_margin_curve(axes, curve)
    >>> cut_at_floor(axes, [curve])
    >>> round(float(axes.get_xlim()[1]), 2)  # a little beyond the largest margin
    0.42
    """
    curves = list(curves)
    steps = [curve.distances[curve.distances < curve.upper] for curve in curves]
    last = max((eps.max().item() for eps in steps if len(eps)), default=0.0)
    largest = max(curve.upper for curve in curves)
    # curves that are flat from zero on end at d
    right = min(1.05 * last, largest) if last > 0 else largest
    if not axes.get_autoscalex_on():
        right = max(right, axes.get_xlim()[1])
    axes.set_xlim(0, right)


def _legend(name: str, curve: Any) -> str:
    text = f"{name}:  R = {curve.area:#.4g}"
    if curve.missing:
        text += f"  (no adversarial example found: {curve.missing} of {curve.count})"
    return "\n".join([text, *(f"    {note}" for note in curve.notes)])
