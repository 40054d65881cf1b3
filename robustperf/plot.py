"""Figures, drawn without pyplot: they need no display and leave the caller's backend and figures unchanged."""

from __future__ import annotations

import base64
import io
import math
import os
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from robustperf import check
from robustperf.files import atomic_write, user_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NORMS = {1: "$L_1$", 2: "$L_2$", math.inf: r"$L_\infty$"}

# Okabe and Ito's colours, which colour-blind readers can tell apart
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]

# for names and titles, which are neither mathematics nor TeX
_LITERAL = {"parse_math": False, "usetex": False}

_MOST_NAMED = 3  # components of delta above a picture


def margin_curves(
    curves: Mapping[str, Any],
    path: str | os.PathLike[str] | None = None,
    confidence: float = 0.95,
    norm: float = 2,
    title: str | None = None,
) -> Figure:
    """Several margin curves in one figure, after Figure 3 of Tibo et al. 2021.

    The legend gives R, the area under each curve over [0, d], the number of points without an adversarial example, and
    what else makes its margins doubtful (`MarginCurve.notes`). The shaded band is `MarginCurve.band(confidence)`. The
    x-axis ends where the last curve has reached its lowest level.

    Args:
        curves: name -> `robustperf.robustness.margin_curve.MarginCurve`, drawn in this order.
        path: also save the figure there, atomically, in the format of the suffix (.png, .pdf, .svg; PNG without
            one).
        confidence: of the band, strictly between 0 and 1.
        norm: 1, 2 or inf, the norm that measured the distances.
        title: above the figure.

    Returns a matplotlib Figure that pyplot does not manage.

    Raises:
        TypeError: a value of curves is not a margin curve.
        ValueError: curves are empty, or confidence or norm is none of those above.
        FileNotFoundError: the folder of path does not exist.
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
    norm = check.norm(norm)

    from cycler import cycler

    lines = sum(1 + len(curve.notes) for curve in curves.values())
    axes = margin_axes(height=3.7 + 0.2 * lines, norm=norm, title=title)
    axes.set_prop_cycle(cycler(linestyle=["-", "--", ":"]) * cycler(color=_COLOURS))
    for name, curve in curves.items():
        draw_margin_curve(axes, curve, label=name, confidence=confidence)
    cut_at_floor(axes, curves.values())
    # below the axes, where no curve can run under it
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
        text.set(text=_legend(name, curve), **_LITERAL)  # as a label, a name that begins with _ would be left out
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
        epochs: a row for each, as in `robustperf.training.Fitted.epochs`: epoch, loss, accuracy and, where there was a
            validation set, validation_loss and validation_accuracy.
        path: also save the figure there, as in `margin_curves`.
        best: an epoch to mark, whose weights were kept.
        title: above the figure.

    Returns a matplotlib Figure that pyplot does not manage.

    Raises ValueError for no epoch; FileNotFoundError where the folder of path does not exist.
    """
    if not epochs:
        raise ValueError("epochs: expected at least one, got none")
    figure = _figure(8.0, 3.4, layout="constrained")
    for axes, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.set_prop_cycle(color=_COLOURS)
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
        figure.suptitle(textwrap.fill(title, 100), fontsize="medium", **_LITERAL)
    if path is not None:
        save(figure, path)
    return figure


def margin_axes(height: float = 4.2, norm: float | None = None, title: str | None = None) -> Axes:
    """Axes labelled for margin curves, alone on a new figure, `height` inches high, that pyplot does not manage.

    `norm` (1, 2 or inf) is named on the x-axis unless it is None.
    """
    axes = _figure(6.4, height, layout="constrained").add_subplot()
    axes.set_xlabel(r"distance $\epsilon$" + ("" if norm is None else f" ({_NORMS[norm]})"))
    axes.set_ylabel("fraction of points with no\n" r"adversarial example within $\epsilon$")
    # a margin, so that lines at 0 and at 1 show in full width
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if title is not None:
        axes.set_title(title, **_LITERAL)
    return axes


def draw_margin_curve(
    axes: Axes, curve: Any, *, label: str | None = None, confidence: float | None = 0.95, **kwargs: Any
) -> None:
    """Draws one margin curve over [0, d] on `axes` as a step function, with its band unless `confidence` is None.

    `kwargs` go to the line (`Axes.plot`).
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
    """Ends the x-axis where the last of `curves` has reached its lowest level; never shortens an axis already cut."""
    curves = list(curves)
    steps = [curve.distances[curve.distances < curve.upper] for curve in curves]
    last = max((each.max().item() for each in steps if len(each)), default=0.0)
    largest = max(curve.upper for curve in curves)
    # curves that are flat from zero on have no better end than d
    right = min(1.05 * last, largest) if last > 0 else largest
    if not axes.get_autoscalex_on():
        right = max(right, axes.get_xlim()[1])
    axes.set_xlim(0, right)


def image_grid(
    x: torch.Tensor,
    drawn: torch.Tensor,
    delta: torch.Tensor | None = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    labels: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Images and draws of a nuisance kernel: one row per image, x first, then its draws.

    Args:
        x: [B, C, H, W]; grey, RGB or RGBA. Black is 0 and white is 1; values beyond are clamped.
        drawn: [K, B, C', H', W'] as `Kernel.draw` gives it; C' may be another C.
        delta: [K, B, q], written above each draw where q is at most 3.
        path: also save the figure there, as in `margin_curves`.
        title: above the figure, on as many lines as it takes.
        labels: B texts, one for each row.
        names: K texts, one above each column of draws, in delta's place.

    Returns a matplotlib Figure that pyplot does not manage.

    Raises ValueError for no image or draw, and for shapes that do not fit or cannot be shown; FileNotFoundError where
    the folder of path does not exist.
    """
    draws, rows = drawn.shape[:2]
    for name, images, value in (("x", x, x), ("drawn", drawn.flatten(0, 1), drawn)):
        if images.dim() != 4 or images.shape[1] not in (1, 3, 4) or not images.numel():
            raise ValueError(f"{name}: expected images with 1, 3 or 4 channels, got shape {list(value.shape)}")
    if rows != len(x):
        raise ValueError(f"drawn: expected draws of {len(x)} images, got {rows}")
    if delta is not None and delta.shape[:2] != drawn.shape[:2]:
        raise ValueError(f"delta: expected shape [{draws}, {rows}, q], got {list(delta.shape)}")
    if names is not None and len(names) != draws:
        raise ValueError(f"names: expected {draws}, one for each draw, got {len(names)}")
    named = names is None and delta is not None and delta.shape[2] <= _MOST_NAMED

    # in inches and by hand: a layout engine takes seconds for a hundred axes
    cell, gap, line = 0.9, 0.08, 0.12
    left = gap if labels is None else 0.28
    width = left + (draws + 1) * (cell + gap) + gap
    heading = textwrap.wrap(title or "", int(width / 0.07))
    above = gap + line * (delta.shape[2] if named else 0)  # each row
    top = 0.16 * len(heading) + line * (not named)
    pitch = above + cell * x.shape[2] / x.shape[3]
    height = top + rows * pitch + gap
    figure = _figure(width, height)
    figure.text(0.5, 1 - 0.06 / height, "\n".join(heading), ha="center", va="top", fontsize=9, **_LITERAL)
    for row in range(rows):
        for column, image in enumerate([x[row], *drawn[:, row]]):
            from_left = left + column * (cell + gap) + gap * (column > 0)
            from_below = height - top - (row + 1) * pitch
            axes = figure.add_axes((from_left / width, from_below / height, cell / width, (pitch - above) / height))
            pixels = image.detach().clamp(0, 1).movedim(0, -1).cpu().numpy()
            axes.imshow(
                pixels,
                cmap="gray",
                vmin=0,
                vmax=1,
                aspect="auto",
                interpolation="nearest" if max(pixels.shape) <= 64 else None,
            )  # small ones as squares
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_linewidth(0.3)
            if column == 0:
                text = "x" if row == 0 else ""
                axes.set_ylabel("" if labels is None else labels[row], fontsize=7, **_LITERAL)
            else:
                text = _values(delta[column - 1, row]) if named else ""
                if names is not None and row == 0:
                    text = names[column - 1]
            axes.set_title(text, fontsize=7, pad=2, linespacing=1, **_LITERAL)
    if path is not None:
        save(figure, path)
    return figure


def domain_overview(
    x: torch.Tensor,
    values: torch.Tensor,
    edges: torch.Tensor,
    measure: str,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Figure:
    """The distribution of a measure over a data set, after Figures 22 to 25 of Robey et al. 2020: its histogram with
    the domains shaded, images under the bins that they are in, and a few rows of images from each domain.

    Args:
        x: [N, C, H, W] in [0, 1]; grey, RGB or RGBA. Those shown are evenly spaced in each bin or domain.
        values: [N], the measure of each.
        edges: [K + 1], ascending: of the bins, which include their left edges.
        measure: what values are, for the axis.
        ranges: name -> (low, high), both excluded, of each domain; none for the histogram and its images alone.
        path: also save the figure there, as in `margin_curves`.
        title: above the figure.

    Returns a matplotlib Figure that pyplot does not manage.

    Raises ValueError for no image, images that cannot be shown, and shapes that do not fit; FileNotFoundError where the
    folder of path does not exist.
    """
    if x.dim() != 4 or x.shape[1] not in (1, 3, 4) or not x.numel():
        raise ValueError(f"x: expected images with 1, 3 or 4 channels, got shape {list(x.shape)}")
    if values.shape != x.shape[:1]:
        raise ValueError(f"values: expected shape [{len(x)}], got {list(values.shape)}")
    if edges.dim() != 1 or len(edges) < 2 or not (edges.diff() > 0).all():
        raise ValueError(f"edges: expected two or more in ascending order, got {edges.tolist()}")
    ranges = {} if ranges is None else ranges
    bins = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    of_bin = [((values >= low) & (values < high)).nonzero()[:, 0] for low, high in bins]
    of_range = [((values > low) & (values < high)).nonzero()[:, 0] for low, high in ranges.values()]
    colours = [_COLOURS[number % len(_COLOURS)] for number in (0, 2, 1, 3, 4, 5, 6)][: len(ranges)]

    # in inches and by hand, as in `image_grid`
    across, gap = 8.4, 0.12
    tall = across / len(bins) * x.shape[2] / x.shape[3]  # an image
    left = 1.5 if ranges else 0.7
    above = 0.28 * (title is not None) + 0.22 * bool(ranges) + gap
    rows = max(0.55, 2 * tall) + gap  # of each domain, at least as high as its text
    top = above + 2.15 + 0.5
    width, height = left + across + gap, top + 3 * tall + gap + rows * len(ranges)
    figure = _figure(width, height)
    if title is not None:
        figure.suptitle(title, fontsize=10, x=(left + across / 2) / width, y=1 - 0.08 / height, va="top", **_LITERAL)

    axes = figure.add_axes((left / width, 1 - (above + 2.15) / height, across / width, 2.15 / height))
    axes.bar(
        [low for low, _ in bins],
        [len(each) for each in of_bin],
        [high - low for low, high in bins],
        align="edge",
        color="0.45",
        edgecolor="white",
        linewidth=0.5,
    )
    axes.set_xlim(bins[0][0], bins[-1][1])
    axes.set_xlabel(measure, fontsize=8, labelpad=1, **_LITERAL)
    axes.set_ylabel("images", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    for (name, (low, high)), colour in zip(ranges.items(), colours, strict=True):
        start, end = max(low, bins[0][0]), min(high, bins[-1][1])
        if start < end:
            axes.axvspan(start, end, color=colour, alpha=0.2, linewidth=0)
            axes.text(
                (start + end) / 2,
                1.01,
                name,
                color=colour,
                fontsize=8,
                ha="center",
                va="bottom",
                transform=axes.get_xaxis_transform(),
                **_LITERAL,
            )

    cells = {(row, column): index for column, each in enumerate(of_bin) for row, index in enumerate(_spread(each, 3))}
    _tile(figure, x, cells, len(bins), (left, top, across, 3 * tall))
    top += 3 * tall + gap
    for (name, bounds), colour, each in zip(ranges.items(), colours, of_range, strict=True):
        text = f"{name}\n{_between(measure, *bounds)}\n{len(each):,} images"
        figure.text(
            (left - 0.1) / width, 1 - top / height, text, color=colour, fontsize=7, ha="right", va="top", **_LITERAL
        )
        cells = {divmod(place, len(bins)): index for place, index in enumerate(_spread(each, 2 * len(bins)))}
        _tile(figure, x, cells, len(bins), (left, top, across, 2 * tall))
        top += rows
    if path is not None:
        save(figure, path)
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes `figure` to `path` in the format of its suffix (PNG without one), atomically."""
    with atomic_write(path) as partial:
        figure.savefig(partial, format=_format(path))


def check_path(path: str | os.PathLike[str]) -> Path:
    """`user_path(path)`, if a figure can be written there.

    Raises FileNotFoundError where its folder does not exist; ValueError for a suffix that is no format of pictures.
    """
    _import_matplotlib()
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if _format(path) not in formats:
        raise ValueError(
            f"path: expected a picture's suffix, such as .png, .pdf or .svg of {', '.join(formats)}, got {path}"
        )
    path = user_path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: expected one in a folder that exists, got {path}")
    return path


def _format(path: str | os.PathLike[str]) -> str:
    return Path(path).suffix[1:].lower() or "png"


def _import_matplotlib() -> None:
    """Imports matplotlib, also where an environment inherited from a notebook names a backend that is not installed:
    these figures need none."""
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    with suppress(ValueError):
        if backend:
            matplotlib.rcParams["backend"] = backend  # as its own import does, where an unknown one is an error


def as_html(figure: Figure) -> str:
    """The figure as an HTML element with the image embedded."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return f"<img src='data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}'>"


def _figure(width: float, height: float, **kwargs) -> Figure:
    """A figure, its size in inches, that pyplot does not manage."""
    _import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, **kwargs)
    FigureCanvasAgg(figure)
    return figure


def _spread(rows: torch.Tensor, most: int) -> list[int]:
    """At most `most` of `rows`, evenly spaced."""
    few = rows if len(rows) <= most else rows[torch.linspace(0, len(rows) - 1, most, dtype=torch.float32).long()]
    return few.tolist()


def _tile(
    figure: Figure,
    x: torch.Tensor,
    cells: Mapping[tuple[int, int], int],
    columns: int,
    box: tuple[float, float, float, float],
) -> None:
    """Draws images of `x` in cells (row, column), in a box (left, top, width, height) in inches from the top left."""
    if not cells:
        return
    left, top, across, down = box
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, 1 - (top + down) / height, across / width, down / height))
    for (row, column), index in cells.items():
        pixels = x[index].detach().clamp(0, 1).movedim(0, -1).cpu().numpy()
        axes.imshow(
            pixels,
            cmap="gray",
            vmin=0,
            vmax=1,
            aspect="auto",
            extent=(column + 0.04, column + 0.96, row + 0.96, row + 0.04),
        )
    high = x.shape[2] / x.shape[3] * across / columns  # of a cell, in inches
    axes.set(xlim=(0, columns), ylim=(down / high, 0))
    axes.set_axis_off()


def _between(name: str, low: float, high: float) -> str:
    """The open interval (low, high) as text."""
    if high == math.inf:
        return f"{name} > {low:g}"
    return f"{name} < {high:g}" if low == -math.inf else f"{low:g} < {name} < {high:g}"


def _values(delta: torch.Tensor) -> str:
    """Each value with two digits, one per line."""
    return "\n".join(f"{float(f'{value:.1e}'):g}" for value in delta.tolist())


def _legend(name: str, curve: Any) -> str:
    text = f"{name}:  R = {curve.area:#.4g}"
    if curve.missing:
        text += f"  (no adversarial example found: {curve.missing} of {curve.count})"
    return "\n".join([text, *(f"    {note}" for note in curve.notes)])
