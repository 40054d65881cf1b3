"""Numbers and tables as Markdown, for all benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def text(value: Any) -> str:
    """A cell: nothing for None, four digits of a float."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The lines of a table."""
    cells = [[text(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in (columns, *rows)]
    head, *body = ["| " + " | ".join(row) + " |" for row in cells]
    return [head, "|" + " --- |" * len(columns), *body]
