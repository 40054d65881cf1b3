"""A list of work that several processes share in a folder: each takes names off it and records their outcomes.

When a process dies, the name that it had taken is known; the other processes and its replacement take the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any


class SharedWork:
    """The side of one process.

    Args:
        folder: the same for all processes; None where there is only this one.
        process: its number, from 0.
        processes: how many there are.
    """

    def __init__(self, folder: Path | None, process: int = 0, processes: int = 1):
        self.folder, self.process, self.processes = folder, process, processes

    def take(self, names: Sequence[str]) -> Iterator[str]:
        """Takes names one by one that no other process has taken, and marks the end of the list.

        Each process starts at a different place, so that neighbours, which often need the same compiled kernels, go to
        one process.
        """
        if self.folder is not None:
            _write(self.folder / "names.json", json.dumps(list(names)))
        start = len(names) * self.process // self.processes
        for name in (*names[start:], *names[:start]):
            if self.folder is None or self._is_mine(name):
                yield name
        if self.folder is not None:
            (self.folder / f"ended-{self.process}").touch()

    def _is_mine(self, name: str) -> bool:
        try:
            (self.folder / f"taken-{hashlib.sha256(name.encode()).hexdigest()}").open("x").close()
        except FileExistsError:
            return False
        self._append("started", name)
        return True

    def record(self, name: str, **outcome: Any) -> None:
        """Records the outcome of a name that was taken."""
        if self.folder is not None:
            self._append("outcomes", {"name": name, **outcome})

    def _append(self, what: str, content: Any) -> None:
        with (self.folder / f"{what}-{self.process}").open("a") as file:
            file.write(f"\n{json.dumps(content)}\n")  # ends a line that was cut off


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")  # several processes write it
    partial.write_text(text)
    partial.replace(path)


def read_names(folder: Path) -> list[str]:
    """The list; empty where no process has written it."""
    path = folder / "names.json"
    return json.loads(path.read_text()) if path.exists() else []


def read_outcomes(folder: Path) -> list[dict[str, Any]]:
    return _lines(folder, "outcomes")


def read_started(folder: Path, process: int | str = "*") -> list[str]:
    """The names that one process took, or all did."""
    return _lines(folder, "started", process)


def has_ended(folder: Path, process: int) -> bool:
    """Whether this process reached the end of the list."""
    return (folder / f"ended-{process}").exists()


def _lines(folder: Path, what: str, process: int | str = "*") -> list[Any]:
    found = []
    for path in sorted(folder.glob(f"{what}-{process}")):
        for line in filter(None, path.read_text().splitlines()):
            with suppress(ValueError):  # cut off when its process was stopped
                found.append(json.loads(line))
    return found
