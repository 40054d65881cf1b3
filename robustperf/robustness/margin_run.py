"""Margins on disk: a run saves each finished part, so that it can be resumed after an interruption."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustperf.data import read_npz
from robustperf.files import SETTINGS, atomic_write, record_settings, user_path
from robustperf.robustness.diagnostics import Diagnostics
from robustperf.robustness.margin_result import Margins

_TEXTS = ("attacks", "labelled", "access", "queries")  # the fields that are saved as JSON


def save_margins(path: str | os.PathLike[str], margins: Margins) -> None:
    """Writes every field of `margins` to an npz file, atomically; points that were not kept are left out."""
    arrays = {}
    for field in fields(Margins):
        value = getattr(margins, field.name)
        if isinstance(value, torch.Tensor):
            value = value.numpy()
        elif isinstance(value, (tuple, str, bool)):
            value = _text(value)
        elif isinstance(value, Diagnostics):
            value = _text(asdict(value))
        if value is not None:
            arrays[field.name] = np.asarray(value)
    with atomic_write(path) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)


def load_margins(path: str | os.PathLike[str]) -> Margins:
    """What `save_margins` wrote. Raises ValueError for a damaged file or one of another kind."""
    arrays = read_npz(path)
    try:
        texts = {name: json.loads(arrays.pop(name).tobytes()) for name in _TEXTS if name in arrays}
        texts = {name: tuple(value) if isinstance(value, list) else value for name, value in texts.items()}
        norm, diameter = float(arrays.pop("norm")), float(arrays.pop("diameter"))
        known = arrays.pop("diagnostics", None)
        diagnostics = None if known is None else Diagnostics(**json.loads(known.tobytes()))
        tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
        return Margins(**{"point": None, **tensors, **texts}, norm=norm, diameter=diameter, diagnostics=diagnostics)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected the margins that robustperf writes: {error}") from error


def _text(value: Any) -> np.ndarray:
    """JSON as bytes."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


class MarginRun:
    """The folder of one run: its finished parts, then its result in margins.npz.

    `settings` holds everything that the results depend on. An earlier run in the folder is resumed only when `resume`
    is true and its settings are the same.

    Raises ValueError otherwise, naming what differs.
    """

    folder: Path
    parts: Path
    result: Path

    def __init__(self, folder: str | os.PathLike[str], settings: dict[str, Any], *, resume: bool = False) -> None:
        self.folder, self.parts, self.result = _places(folder)
        record_settings(self.folder, settings, resume=resume)
        self.parts.mkdir(exist_ok=True)

    @staticmethod
    def forget(folder: str | os.PathLike[str]) -> None:
        """Removes an earlier run from the folder, and nothing else."""
        folder, parts, result = _places(folder)
        shutil.rmtree(parts, ignore_errors=True)
        result.unlink(missing_ok=True)
        (folder / SETTINGS).unlink(missing_ok=True)

    def done(self, start: int) -> bool:
        """Whether the part that begins at point `start` has been saved."""
        return self.result.exists() or self._part(start).exists()

    def keep(self, start: int, part: Margins) -> None:
        """Saves the part that begins at point `start`."""
        save_margins(self._part(start), part)

    def collect(self, starts: Iterable[int]) -> Margins:
        """The result. The first call concatenates the parts and removes them."""
        if not self.result.exists():
            save_margins(self.result, Margins.concatenate([load_margins(self._part(start)) for start in starts]))
        shutil.rmtree(self.parts, ignore_errors=True)
        return load_margins(self.result)

    def _part(self, start: int) -> Path:
        return self.parts / f"{start:09d}.npz"


def _places(folder: str | os.PathLike[str]) -> tuple[Path, Path, Path]:
    folder = user_path(folder)
    return folder, folder / "parts", folder / "margins.npz"
