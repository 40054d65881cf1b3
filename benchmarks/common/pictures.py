"""The pictures of the reports: bars in groups with a colour for each method, and lines over a column."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from robustperf.plot.figure import COLOURS, LITERAL, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .cases import Ratio

DEVIATION, PAPER = "deviation", "paper %"  # columns: whiskers, and a mark on the bar
_HATCHES = ("", "////", "....")  # where there are more methods than colours
_OPENING, _CLOSING = "([{", ")]}"


def split_label(label: str) -> tuple[str, str]:
    """(group, method) of a row's label: what stands before and after its last comma or colon outside brackets; no group
    where it has neither.

    >>> split_label("mnist, 16 (a, b), ERM"), split_label("ERM")
    (('mnist, 16 (a, b)', 'ERM'), ('', 'ERM'))
    """
    depth = 0
    for place in range(len(label) - 1, 0, -1):
        depth += (label[place] in _CLOSING) - (label[place] in _OPENING)
        if not depth and label[place : place + 2] in (", ", ": "):
            return label[:place], label[place + 2 :]
    return "", label


def bar_chart(rows: Sequence[Mapping[str, Any]], label: str, value: str, title: str, settings: str = "") -> Figure:
    """A bar for each row, with its value at the right edge. Where groups have the same methods, or there is one group,
    each method has a colour and the groups stand apart under their names; otherwise all bars have one colour and whole
    labels.

    Args:
        rows: with the columns `label` and `value`, and possibly `DEVIATION` (whiskers) and `PAPER` (marks). Rows whose
            value is not a float have no bar.
        title: in words.
        settings: in small letters below it.
    """
    rows = [row for row in rows if isinstance(row.get(value), float)]
    parts = [split_label(str(row[label])) for row in rows]
    methods = list(dict.fromkeys(method for _, method in parts))
    grouped = all(group for group, _ in parts) and (len({group for group, _ in parts}) == 1 or len(methods) < len(rows))
    if not grouped:
        parts = [("", str(row[label])) for row in rows]
    groups = [(name, len(list(run))) for name, run in groupby(group for group, _ in parts)]
    axes = _axes(1.5 + 0.24 * len(rows) + 0.42 * len(groups) * grouped, title, settings)
    places, heads, top = [], [], 0.0
    for name, count in groups:
        heads.append((top + 0.2, name))
        top += 1.2 * grouped
        places += [top + row for row in range(count)]
        top += count
    names = methods if grouped else [""]
    for number, method in enumerate(names):
        own = [row for row in range(len(rows)) if not grouped or parts[row][1] == method]
        _draw_bars(axes, [places[row] for row in own], [rows[row] for row in own], value, number)
    axes.set_yticks(places, [method for _, method in parts], fontsize="small", **LITERAL)
    for place, name in heads[: len(heads) * grouped]:
        axes.text(0, place, name, transform=axes.get_yaxis_transform(), weight="bold", fontsize="small", **LITERAL)
    _draw_papers(axes, places, rows)
    axes.set_ylim(top - 0.3, -0.7 + 0.4 * grouped)
    axes.set_xlabel(value, **LITERAL)
    axes.tick_params(axis="y", length=0)
    return axes.figure


def _draw_bars(axes: Axes, places: Sequence[float], rows: Sequence[Mapping[str, Any]], value: str, number: int) -> None:
    """The bars of one method, with whiskers where they have a deviation, and their values."""
    axes.barh(
        places,
        [row[value] for row in rows],
        height=0.8,
        color=COLOURS[number % len(COLOURS)],
        hatch=_HATCHES[number // len(COLOURS) % len(_HATCHES)],
        edgecolor="white",
        linewidth=0.5,
    )
    for place, row in zip(places, rows, strict=True):
        text, deviation = f"{row[value]:.3g}", row.get(DEVIATION)
        if deviation:
            axes.errorbar(row[value], place, xerr=deviation, color="0.25", capsize=2.5, linewidth=1, fmt="none")
            text += f" ± {deviation:.2g}"
        axes.annotate(
            text,
            (1, place),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize="x-small",
        )


def _draw_papers(axes: Axes, places: Sequence[float], rows: Sequence[Mapping[str, Any]]) -> None:
    """A mark at the paper's value of each row that has one, and its legend."""
    marked = [(row[PAPER], place) for place, row in zip(places, rows, strict=True) if row.get(PAPER) is not None]
    whiskers = any(row.get(DEVIATION) for row in rows)
    if marked:
        x, y = zip(*marked, strict=True)
        axes.plot(x, y, "D", color="white", markeredgecolor="black", markersize=4.5, label="the paper", zorder=4)
    if whiskers:
        axes.errorbar([], [], xerr=[], color="0.25", capsize=2.5, linewidth=1, fmt="none", label="deviation over seeds")
    if marked or whiskers:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize="small")


def line_chart(
    rows: Sequence[Mapping[str, Any]],
    over: str,
    title: str,
    settings: str = "",
    log: bool = False,
) -> Figure:
    """A line for each column over the column `over`, with whiskers where a column "NAME deviation" belongs to it.

    Args:
        log: whether the horizontal axis is logarithmic.
    """
    axes = _axes(4.8, title, settings)
    columns = [column for column in dict.fromkeys(name for row in rows for name in row) if column != over]
    lines = [column for column in columns if not column.endswith(f" {DEVIATION}")]
    for number, column in enumerate(lines):
        own = [row for row in rows if row.get(column) is not None]
        spread = [row.get(f"{column.removesuffix(' %')} {DEVIATION}") or 0.0 for row in own]
        axes.errorbar(
            [row[over] for row in own],
            [row[column] for row in own],
            yerr=spread if any(spread) else None,
            color=COLOURS[number % len(COLOURS)],
            linestyle=("-", "--", ":")[number // len(COLOURS) % 3],
            marker=".",
            capsize=2.5,
            label=column,
        )
    if log:
        axes.set_xscale("log")
        axes.set_xticks([row[over] for row in rows], [f"{row[over]:,}" for row in rows])
        axes.minorticks_off()
    axes.set_xlabel(over, **LITERAL)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    return axes.figure


def log_bars(ratios: Mapping[str, Ratio], label: str) -> Figure:
    """A bar for each ratio, from 1 on a logarithmic axis, with its interval: to the right of 1 is faster."""
    axes = _axes(1.2 + 0.24 * len(ratios), "", "")
    for place, ratio in enumerate(ratios.values()):
        colour = COLOURS[0] if ratio.median >= 1 else COLOURS[1]
        axes.barh(place, ratio.median - 1, left=1, height=0.8, color=colour)
        axes.plot([ratio.low, ratio.high], [place, place], color="0.25", linewidth=1.5)
        axes.annotate(f"{ratio.median:.3g}", (1, place), xycoords=axes.get_yaxis_transform(), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize="x-small")  # fmt: skip
    axes.set_xscale("log")
    axes.axvline(1, color="0.25", linewidth=0.8)
    axes.set_yticks(range(len(ratios)), list(ratios), fontsize="x-small", **LITERAL)
    axes.set_ylim(len(ratios) - 0.4, -0.6)
    axes.set_xlabel(label, **LITERAL)
    return axes.figure


def log_lines(curves: Sequence[Mapping[str, Any]]) -> Figure:
    """Values over sizes, both over the first of the curve, on logarithmic axes.

    Args:
        curves: with "curve", "over", "sizes", "values" and "slope".
    """
    axes = _axes(4.8, "", "")
    for number, curve in enumerate(curves):
        sizes, values = curve["sizes"], curve["values"]
        axes.plot(
            [size / sizes[0] for size in sizes],
            [value / values[0] for value in values],
            color=COLOURS[number % len(COLOURS)],
            marker=".",
            label=f"{curve['curve']}, by {curve['over']}: slope {curve['slope']:.2f}",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("size over the smallest", **LITERAL)
    axes.set_ylabel("time over that of the smallest", **LITERAL)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    return axes.figure


def _axes(height: float, title: str, settings: str) -> Axes:
    figure = new_figure(7.5, height, layout="constrained")
    figure.suptitle(textwrap.fill(title, 80), fontsize="medium", **LITERAL)
    if settings:
        figure.supxlabel(textwrap.fill(settings, 110), fontsize="x-small", color="0.4", **LITERAL)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return axes
