"""Figures that show images: draws of a nuisance kernel, and the domains of a data set."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from robustperf.plot.figure import COLOURS, LITERAL, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_NAMED = 3  # components of delta written above an image


def image_grid(
    x: torch.Tensor,
    drawn: torch.Tensor,
    delta: torch.Tensor | None = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    labels: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    texts: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """Images and draws of a nuisance kernel: one row per image, x first, then its draws.

    Args:
        x: [B, C, H, W]; grey, RGB or RGBA. Black is 0 and white is 1; values beyond are clamped.
        drawn: [K, B, C', H', W'], as `Kernel.draw` returns it; C' may differ from C.
        delta: [K, B, q], written above each draw if q is at most 3.
        path: also save the figure there, atomically, in the format of the suffix (.png, .pdf, .svg; PNG without
            one).
        title: above the figure, wrapped to its width.
        labels: B texts, one per row.
        names: K texts, one above each column of draws, instead of delta.
        texts: [K][B] texts of one line, one above each draw, below `names` and instead of delta.

    Returns a matplotlib Figure that pyplot does not manage.

    Raises ValueError if there are no images or draws, if shapes do not fit, or if the images cannot be shown;
    FileNotFoundError if the folder of `path` does not exist.

    >>> x = rp.data.load("digits", "test").x[:3]
    >>> drawn = rp.nuisance.Rotation(30).draw(x, key=0, index=torch.arange(3), draws=5)
    >>> figure = image_grid(x, drawn, path="draws.png")
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
    if texts is not None and [len(column) for column in texts] != [rows] * draws:
        raise ValueError(f"texts: expected {draws} x {rows}, got {[len(column) for column in texts]}")
    if names is None and texts is None and delta is not None and delta.shape[2] <= _MAX_NAMED:
        texts = [[_values(value) for value in values] for values in delta]
    lines = 0 if texts is None else 1 + max(text.count("\n") for column in texts for text in column)

    # in inches, without a layout engine, which takes seconds for a hundred axes
    cell, gap, line = 0.9, 0.08, 0.12
    left = gap if labels is None else 0.28
    width = left + (draws + 1) * (cell + gap) + gap
    heading = textwrap.wrap(title or "", int(width / 0.07))
    above = gap + line * lines  # each row
    top = 0.16 * len(heading) + line * (names is not None or not lines)
    pitch = above + cell * x.shape[2] / x.shape[3]
    height = top + rows * pitch + gap
    figure = new_figure(width, height)
    figure.text(0.5, 1 - 0.06 / height, "\n".join(heading), ha="center", va="top", fontsize=9, **LITERAL)
    for row in range(rows):
        for column, image in enumerate([x[row], *drawn[:, row]]):
            from_left = left + column * (cell + gap) + gap * (column > 0)
            from_below = height - top - (row + 1) * pitch
            axes = figure.add_axes((from_left / width, from_below / height, cell / width, (pitch - above) / height))
            # pixels of small images as squares
            _show(axes, image, interpolation="nearest" if max(image.shape) <= 64 else None)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_linewidth(0.3)
            if column == 0:
                text = "x" if row == 0 else ""
                axes.set_ylabel("" if labels is None else labels[row], fontsize=7, **LITERAL)
            else:
                name = "" if names is None or row > 0 else names[column - 1]
                text = "\n".join(filter(None, [name, texts[column - 1][row] if lines else ""]))
            axes.set_title(text, fontsize=7, pad=2, linespacing=1, **LITERAL)
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
    """The distribution of a measure over a data set, after Figures 22 to 25 of Robey et al. 2020.

    From top to bottom: the histogram with the domains shaded, example images of each bin, and rows of example images of
    each domain.

    Args:
        x: [N, C, H, W] in [0, 1]; grey, RGB or RGBA. The examples are evenly spaced in each bin or domain.
        values: [N], the measure of each image.
        edges: [K + 1], ascending, the edges of the bins; a bin includes its left edge.
        measure: the name of the measure, for the axis.
        ranges: domain -> (low, high), both excluded; None for the histogram and its images only.
        path: also save the figure there, atomically, in the format of the suffix (.png, .pdf, .svg; PNG without
            one).
        title: above the figure.

    Returns a matplotlib Figure that pyplot does not manage.

    Raises ValueError if there are no images, if they cannot be shown, or if shapes do not fit; FileNotFoundError if the
    folder of `path` does not exist.

    >>> digits = rp.data.load("digits", "test").x[:100]
    >>> values = rp.data.brightness(digits)
    >>> figure = domain_overview(digits, values, torch.linspace(40, 120, 9), "brightness", {"low": (0, 70)})
    """
    if x.dim() != 4 or x.shape[1] not in (1, 3, 4) or not x.numel():
        raise ValueError(f"x: expected images with 1, 3 or 4 channels, got shape {list(x.shape)}")
    if values.shape != x.shape[:1]:
        raise ValueError(f"values: expected shape [{len(x)}], got {list(values.shape)}")
    if edges.dim() != 1 or len(edges) < 2 or not (edges.diff() > 0).all():
        raise ValueError(f"edges: expected two or more in ascending order, got {edges.tolist()}")
    ranges = {} if ranges is None else ranges
    bins = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    bin_rows = [((values >= low) & (values < high)).nonzero()[:, 0] for low, high in bins]
    domain_rows = [((values > low) & (values < high)).nonzero()[:, 0] for low, high in ranges.values()]
    colours = [COLOURS[number % len(COLOURS)] for number in (0, 2, 1, 3, 4, 5, 6)][: len(ranges)]

    # in inches, without a layout engine, as in `image_grid`
    plot_width, plot_height, gap = 8.4, 2.15, 0.12
    image_height = plot_width / len(bins) * x.shape[2] / x.shape[3]
    left = 1.5 if ranges else 0.7
    above = 0.28 * (title is not None) + 0.22 * bool(ranges) + gap
    domain_height = max(0.55, 2 * image_height) + gap  # at least that of the domain's text
    top = above + plot_height + 0.5
    width, height = left + plot_width + gap, top + 3 * image_height + gap + domain_height * len(ranges)
    figure = new_figure(width, height)
    if title is not None:
        centre = (left + plot_width / 2) / width
        figure.suptitle(title, fontsize=10, x=centre, y=1 - 0.08 / height, va="top", **LITERAL)

    bottom = 1 - (above + plot_height) / height
    axes = figure.add_axes((left / width, bottom, plot_width / width, plot_height / height))
    _histogram(axes, bins, [len(rows) for rows in bin_rows], measure)
    for (name, (low, high)), colour in zip(ranges.items(), colours, strict=True):
        _shade(axes, name, max(low, bins[0][0]), min(high, bins[-1][1]), colour)

    cells = {(row, column): i for column, rows in enumerate(bin_rows) for row, i in enumerate(_spread(rows, 3))}
    _tile(figure, x, cells, len(bins), (left, top, plot_width, 3 * image_height))
    top += 3 * image_height + gap
    for (name, bounds), colour, rows in zip(ranges.items(), colours, domain_rows, strict=True):
        text = f"{name}\n{_between(measure, *bounds)}\n{len(rows):,} images"
        place = ((left - 0.1) / width, 1 - top / height)
        figure.text(*place, text, color=colour, fontsize=7, ha="right", va="top", **LITERAL)
        cells = {divmod(place, len(bins)): i for place, i in enumerate(_spread(rows, 2 * len(bins)))}
        _tile(figure, x, cells, len(bins), (left, top, plot_width, 2 * image_height))
        top += domain_height
    if path is not None:
        save(figure, path)
    return figure


def _histogram(axes: Axes, bins: list[tuple[float, float]], counts: list[int], measure: str) -> None:
    """Draws bars of these counts over the bins (low, high)."""
    axes.bar(
        [low for low, _ in bins],
        counts,
        [high - low for low, high in bins],
        align="edge",
        color="0.45",
        edgecolor="white",
        linewidth=0.5,
    )
    axes.set_xlim(bins[0][0], bins[-1][1])
    axes.set_xlabel(measure, fontsize=8, labelpad=1, **LITERAL)
    axes.set_ylabel("images", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _shade(axes: Axes, name: str, start: float, end: float, colour: str) -> None:
    """Shades [start, end] of the x-axis with a name above, unless it is empty."""
    if start < end:
        axes.axvspan(start, end, color=colour, alpha=0.2, linewidth=0)
        style = {"color": colour, "fontsize": 8, "ha": "center", "va": "bottom", **LITERAL}
        axes.text((start + end) / 2, 1.01, name, transform=axes.get_xaxis_transform(), **style)


def _spread(rows: torch.Tensor, count: int) -> list[int]:
    """At most `count` of `rows`, evenly spaced."""
    few = rows if len(rows) <= count else rows[torch.linspace(0, len(rows) - 1, count, dtype=torch.float32).long()]
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
    left, top, box_width, box_height = box
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, 1 - (top + box_height) / height, box_width / width, box_height / height))
    for (row, column), index in cells.items():
        _show(axes, x[index], extent=(column + 0.04, column + 0.96, row + 0.96, row + 0.04))
    cell_height = x.shape[2] / x.shape[3] * box_width / columns  # in inches
    axes.set(xlim=(0, columns), ylim=(box_height / cell_height, 0))
    axes.set_axis_off()


def _show(axes: Axes, image: torch.Tensor, **options: Any) -> None:
    """Draws the image [C, H, W] into `axes`; `options` are `imshow`'s."""
    pixels = image.detach().clamp(0, 1).movedim(0, -1).cpu().numpy()
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, aspect="auto", **options)


def _between(name: str, low: float, high: float) -> str:
    """The open interval (low, high) as text."""
    if high == math.inf:
        return f"{name} > {low:g}"
    return f"{name} < {high:g}" if low == -math.inf else f"{low:g} < {name} < {high:g}"


def _values(delta: torch.Tensor) -> str:
    """Each value with two digits, one per line."""
    return "\n".join(f"{float(f'{value:.1e}'):g}" for value in delta.tolist())
