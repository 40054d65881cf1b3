"""Rows of one benchmark: printed as they are measured, then as a table, and written as JSON, Markdown and a picture."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from robustperf.plot import save

from .machine import describe_machine
from .options import Output
from .pictures import bar_chart, line_chart
from .quoted import quoted_figures
from .settings import Settings
from .tables import machine_lines, markdown, text, write_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_CELLS = 12  # of a row, in its line of progress


class Report:
    """Collects rows, each a label and its values by column.

    Where `benchmarks/README.md` quotes a figure, it follows the measured one in brackets, unless an option of the run
    changes what is measured.

    Args:
        name: of the files, and in the README's tables.
        title: what was measured, in words.
        output: where the results go.
        settings: of the run, shown below the title.
    """

    def __init__(self, name: str, title: str, output: Output, settings: Settings | None = None):
        self.name, self.title, self.output, self.rows = name, title, output, []
        self.settings = "" if settings is None else str(settings)
        self._quoted = quoted_figures().get(name, {}) if output.comparable else {}

    def add(self, **row: Any) -> None:
        """Adds a row, whose first value is its label, and prints it as progress."""
        self.rows.append(row)
        cells = [f"{column} {self._cell(row, column)}" for column, value in row.items() if value is not None]
        print(f"{self.name}: {', '.join(cells[:_MAX_CELLS])}", file=sys.stderr, flush=True)

    def show(self, bars: tuple[str, str] | None = None, over: str | None = None, log: bool = False) -> None:
        """Prints the table and writes the files.

        Args:
            bars: the columns (label, value) of a bar chart; `pictures.bar_chart` groups its rows.
            over: the column that a line chart draws all others over.
            log: whether that column is on a logarithmic axis.
        """
        machine = describe_machine()
        columns, texts = self._cells()
        table = Table(*columns, title=self.title)
        for row in texts:
            table.add_row(*row)
        console = Console(width=160, highlight=False)
        console.print(table)
        if self.settings:
            console.print(self.settings)
        console.print(_one_line(machine))
        content = {"title": self.title, "settings": self.settings, "machine": machine}
        content |= {"rows": self.rows, "quoted": self._quoted}
        self.output.reports[self.name] = content
        if self.output.json is not None:
            self.output.json.parent.mkdir(parents=True, exist_ok=True)
            write_files(self.output.json.parent, {self.output.json.name: _json(self.output.reports)})
        if self.output.folder is None:
            return
        self.output.folder.mkdir(parents=True, exist_ok=True)
        described = ["- settings: " + self.settings] if self.settings else []
        lines = [f"# {self.title}", "", *described, *machine_lines(machine), "", *markdown(columns, texts)]
        files = {f"{self.name}.json": _json(content), f"{self.name}.md": "\n".join(lines) + "\n"}
        write_files(self.output.folder, files)
        if bars:
            self._save(bar_chart(self.rows, *bars, self.title, self.settings))
        if over:
            self._save(line_chart(self.rows, over, self.title, self.settings, log))

    def _quote(self, row: dict[str, Any], column: str) -> str | None:
        label = text(next(iter(row.values())))
        return self._quoted.get(label, {}).get(column)

    def _columns(self) -> list[str]:
        return list(dict.fromkeys(column for row in self.rows for column in row))

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """(headings, rows) of the table: measured values, followed by what the README quotes."""
        columns = self._columns()
        quoted = {column for column in columns if any(self._quote(row, column) for row in self.rows)}
        rows = [[self._cell(row, column) for column in columns] for row in self.rows]
        return [f"{column} (README)" if column in quoted else column for column in columns], rows

    def _cell(self, row: dict[str, Any], column: str) -> str:
        quote = self._quote(row, column)
        return text(row.get(column)) + (f" ({quote})" if quote else "")

    def _save(self, figure: Figure) -> None:
        assert self.output.folder is not None
        save(figure, self.output.folder / f"{self.name}.png")


def _json(content: Any) -> str:
    return json.dumps(content, indent=1) + "\n"


def _one_line(machine: dict[str, Any]) -> str:
    """The machine below a table."""
    versions = [f"{name} {value}" for name, value in machine["packages"].items() if value]
    parts = [machine["processor"], f"{machine['threads']} threads", machine["instruction_set"], machine["gpu"]]
    return ", ".join(filter(None, [*parts, f"Python {machine['python']}", *versions]))
