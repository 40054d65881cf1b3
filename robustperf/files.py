"""Files that appear whole or not at all, and folders that know what run they hold."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SETTINGS = "settings.json"


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a path beside `path` to write to; afterwards its file takes the place of `path` in one step. After an
    error, or when the machine stops half way, `path` is as it was.

    Raises FileNotFoundError when the folder of `path` does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: expected one in a folder that exists, got {path}")
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def note_settings(folder: str | os.PathLike, settings: dict[str, Any], *, resume: bool) -> None:
    """Writes everything that a run's results depend on into its folder, which is made; or, to go on with the run that
    the folder holds, compares.

    Raises ValueError where there is an earlier run and `resume` is false, or its settings are others (named).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = json.loads(json.dumps(settings))  # as they will be read back
    noted = folder / SETTINGS
    if not noted.exists():
        with written_whole(noted) as partial:
            partial.write_text(json.dumps(settings, indent=1) + "\n")
        return
    if not resume:
        raise ValueError(f"out: {folder} holds an earlier run; resume=True resumes it, or name another")
    before = json.loads(noted.read_text())
    names = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
    if names:
        differences = "; ".join(f"{name} was {before.get(name)!r} and is {settings.get(name)!r}" for name in names)
        raise ValueError(f"out: {folder} holds a run with other settings: {differences}")
