"""The figures that `benchmarks/README.md` quotes, read from its tables.

A table belongs to the report whose name stands in backticks as its first heading. Its other headings are columns of
that report, and its first column has labels of the report's rows. A cell is a number, or a range over machines
(`1.7 to 2.4`).
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import cache
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"

Figures = dict[str, dict[str, dict[str, str]]]
"""Cells by report, row and column."""


@cache
def quoted_figures(path: Path = README) -> Figures:
    """All of them; ValueError for a row that is not as long as its heading."""
    figures: Figures = {}
    name, columns = None, []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            name = None
            continue
        label, *cells = (cell.strip() for cell in line.strip().strip("|").split(" | "))
        if heading := re.fullmatch(r"`(\w+)`", label):
            name, columns = heading[1], cells
            figures.setdefault(name, {})
        elif name and not set(label) <= set("-: |"):
            if len(cells) != len(columns):
                raise ValueError(f"{path.name}: expected {len(columns)} cells after {label}, got {len(cells)}")
            figures[name][label] = {column: cell for column, cell in zip(columns, cells, strict=True) if cell}
    return figures


def agrees(value: float, cell: str) -> bool:
    """Whether a value rounds to the number in a cell, or into its range."""
    least, _, largest = cell.partition(" to ")
    low, high = Decimal(least), Decimal(largest or least)
    half_a_digit = [Decimal((0, (5,), number.as_tuple().exponent - 1)) for number in (low, high)]
    return low - half_a_digit[0] <= Decimal(value) <= high + half_a_digit[1]
