"""A list of work that several processes share, in a folder: each takes names off it, and notes what came of them.

What a process has taken when it dies is known by name, and the rest of the list is taken by the others and by a process
that is started in its place.
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
    """A process's side: number `process` of `processes`.

    Args:
        folder: the same for all; None where there are no others.
    """

    def __init__(self, folder: Path | None, process: int = 0, processes: int = 1):
        self.folder, self.process, self.processes = folder, process, processes

    def take(self, names: Sequence[str]) -> Iterator[str]:
        """Names that no process has taken, one by one, and marks the end of the list. Each process begins at a place of
        its own, so that neighbours, which often need the same compiled kernels, fall to one process."""
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
        self._append("begun", name)
        return True

    def note(self, name: str, **outcome: Any) -> None:
        """What came of a name that was taken."""
        if self.folder is not None:
            self._append("outcomes", {"name": name, **outcome})

    def _append(self, what: str, content: Any) -> None:
        with (self.folder / f"{what}-{self.process}").open("a") as file:
            file.write(f"\n{json.dumps(content)}\n")  # ends a line that a process was stopped in


def _write(path: Path, text: str) -> None:
    waiting = path.with_name(f"{path.name}.{os.getpid()}.part")
    waiting.write_text(text)
    waiting.replace(path)


def read_names(folder: Path) -> list[str]:
    """The list; empty where no process came that far."""
    path = folder / "names.json"
    return json.loads(path.read_text()) if path.exists() else []


def read_outcomes(folder: Path) -> list[dict[str, Any]]:
    return _lines(folder, "outcomes")


def read_begun(folder: Path, process: int | str = "*") -> list[str]:
    """What was taken, by one process or by all."""
    return _lines(folder, "begun", process)


def has_ended(folder: Path, process: int) -> bool:
    """Whether this process came to the end of the list."""
    return (folder / f"ended-{process}").exists()


def _lines(folder: Path, what: str, process: int | str = "*") -> list[Any]:
    found = []
    for path in sorted(folder.glob(f"{what}-{process}")):
        for line in filter(None, path.read_text().splitlines()):
            with suppress(ValueError):  # its process was stopped as it wrote
                found.append(json.loads(line))
    return found
