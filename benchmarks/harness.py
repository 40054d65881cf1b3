"""What the speed benchmarks share: interleaved timing, the machine's description, tables, JSON and pictures.

Machines are noisy, so a figure is a ratio of medians from one run in which the contenders take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table

from robustperf import _native

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def interleave(contenders: dict[str, Callable[[], Any]], repeats: int = 21, warmup: int = 2) -> dict[str, float]:
    """Median seconds of each contender, called in turn."""
    times = {name: [] for name in contenders}
    for turn in range(warmup + repeats):
        for name, call in contenders.items():
            began = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warmup:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    packages = {}
    for package in ("robustperf", "torch", "numpy", "scikit-learn", "scikit-learn-intelex", "foolbox", "kornia",
                    "triton"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = None
    return {
        "processor": _processor(), "threads": torch.get_num_threads(), "instruction_set": _native.isa(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(), "packages": packages,
    }  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


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
        texts = [[_text(row.get(column)) for column in columns] for row in self.rows]
        for row in texts:
            table.add_row(*row)
        Console(width=160).print(table)
        if self.out is None:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / f"{self.name}.json").write_text(
            json.dumps({"title": self.title, "machine": machine(), "rows": self.rows}, indent=1) + "\n"
        )
        lines = [f"# {self.title}", "", "| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        lines += ["| " + " | ".join(row) + " |" for row in texts]
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


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
