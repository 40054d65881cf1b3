"""What the speed benchmarks share: interleaved timing, tables, JSON and pictures.

Machines are noisy, so a figure is a ratio of medians from one run in which the contenders take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from machine import machine
from rich.console import Console
from rich.table import Table
from tables import markdown, text

from robustperf import _native

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def interleave(
    contenders: dict[str, Callable[[], Any]],
    repeats: int = 21,
    warmup: int = 2,
    failed: Callable[[str, Exception], None] | None = None,
) -> dict[str, float]:
    """Median seconds of each contender, called in turn. With `failed`, which is told, one that raises is left out."""

    def timed(call: Callable[[], Any]) -> float:
        began = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began

    times = take_turns({name: partial(timed, call) for name, call in contenders.items()}, warmup + repeats, failed)
    return {name: statistics.median(values[warmup:]) for name, values in times.items()}


def take_turns(
    timed: dict[str, Callable[[], float]], turns: int, failed: Callable[[str, Exception], None] | None = None
) -> dict[str, list[float]]:
    """What each function returned in its turns; as in `interleave`, `failed` hears of those that raise."""
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(turns):
        for name in list(times):
            try:
                times[name].append(timed[name]())
            except Exception as error:
                if failed is None:
                    raise
                del times[name]
                failed(name, error)
    return times


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--out", type=Path, help="folder for the JSON, the table and the picture")
    options.add_argument("--repeats", type=int, default=21, help="turns of each contender; medians are reported")
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    return options


def add_instruction_sets(options: argparse.ArgumentParser) -> None:
    """The option of the benchmarks whose figures depend on the instruction set."""
    options.add_argument("--all-instruction-sets", action="store_true", help="the narrower ones too")


def run_other_instruction_sets(arguments: argparse.Namespace) -> None:
    """With that option: this benchmark once more under each of the others."""
    if not arguments.all_instruction_sets:
        return
    again = [argument for argument in sys.argv if argument != "--all-instruction-sets"]
    for isa in _native.isas():
        if isa != _native.isa():
            subprocess.run([sys.executable, *again], env={**os.environ, "ROBUSTPERF_CPU": isa}, check=True)


class Report:
    """Rows of one benchmark, printed as a table and written to `out` as JSON, Markdown and a bar chart."""

    def __init__(self, name: str, title: str, out: Path | None):
        self.name, self.title, self.out, self.rows = name, title, out, []

    def add(self, **row: Any) -> None:
        self.rows.append(row)

    def show(self, bars: tuple[str, str] | None = None, over: str | None = None) -> None:
        """Prints the table; with `out` writes it too. `bars` names the columns (label, value) of the picture; `over`
        the one that all others are drawn over."""
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        table = Table(*columns, title=self.title)
        texts = [[text(row.get(column)) for column in columns] for row in self.rows]
        for row in texts:
            table.add_row(*row)
        Console(width=160).print(table)
        if self.out is None:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / f"{self.name}.json").write_text(
            json.dumps({"title": self.title, "machine": machine(), "rows": self.rows}, indent=1) + "\n"
        )
        lines = [f"# {self.title}", "", *markdown(columns, texts)]
        (self.out / f"{self.name}.md").write_text("\n".join(lines) + "\n")
        if bars:
            self._bars(*bars)
        if over:
            self._lines(over, columns)

    def _lines(self, over: str, columns: list[str]) -> None:
        axes, x = self._axes(4.5), [row[over] for row in self.rows]
        for column in columns:
            if column != over:
                axes.plot(x, [row[column] for row in self.rows], marker=".", label=column)
        axes.set_xlabel(over)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        self._save(axes)

    def _bars(self, label: str, value: str) -> None:
        rows = [row for row in self.rows if isinstance(row.get(value), float)]
        axes = self._axes(1 + 0.32 * len(rows))
        drawn = axes.barh(range(len(rows)), [row[value] for row in rows])
        axes.bar_label(drawn, fmt="%.3g", padding=3, fontsize="small")
        axes.set_yticks(range(len(rows)), [row[label] for row in rows], fontsize="small")
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel(value)
        self._save(axes)

    def _axes(self, height: float) -> Axes:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.5, height), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_title(self.title, fontsize="medium", wrap=True)
        axes.spines[["top", "right"]].set_visible(False)
        return axes

    def _save(self, axes: Axes) -> None:
        axes.figure.savefig(self.out / f"{self.name}.png")
