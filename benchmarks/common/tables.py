"""Markdown tables and files that are replaced atomically, for all benchmarks.

Imports nothing beyond Python: the program that starts the GPU benchmark's processes must not fail with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def text(value: Any) -> str:
    """A cell: nothing for None, four digits of a float."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def dtype_name(dtype: object) -> str:
    """float32 of torch.float32."""
    return str(dtype).removeprefix("torch.")


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The lines of a table."""
    cells = [[text(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in (columns, *rows)]
    head, *body = ["| " + " | ".join(row) + " |" for row in cells]
    return [head, "|" + " --- |" * len(columns), *body]


def machine_lines(machine: dict[str, Any]) -> list[str]:
    """The known entries of `machine.describe_machine()` as a list, the versions of packages among them."""
    entries = {**machine, **machine.get("packages", {})}
    return [f"- {name}: {value}" for name, value in entries.items() if value and name != "packages"]


def write_files(folder: Path, contents: dict[str, str | bytes]) -> None:
    """Writes files by name; each replaces its predecessor in one step, so that a reader finds one or the other."""
    for name, content in contents.items():
        partial = folder / f"{name}.part"
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(folder / name)
