"""What one part of `gpu.py` found, written after every figure: what a part that is stopped has found is not lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Figures:
    """Rows for `gpu.py`, which reads them from `path`."""

    def __init__(self, path: Path):
        self.path = path
        self.found: dict[str, Any] = {"limits": None, "times": [], "asked": [], "could_not_run": [], "lost": None}
        self._write()

    def limits(self, best: dict[str, float | None]) -> None:
        """Bytes, operations a second and a launch, as the device had them in this part."""
        self.found["limits"] = best
        self._write()

    def time(
        self,
        case: str,
        floor: tuple[float, str],
        ours: dict[str, float],
        beside: dict[str, float] | None = None,
        launches: dict[str, int] | None = None,
        **more: Any,
    ) -> None:
        """Seconds of each backend, over a floor (seconds, its model in a line), and of whatever ran beside them."""
        self._add("times", {"case": case, "floor_us": floor[0] * 1e6, "floor_is": floor[1],
                            "us": {name: seconds * 1e6 for name, seconds in ours.items()},
                            "over_floor": {name: seconds / floor[0] for name, seconds in ours.items()},
                            "beside_us": {name: seconds * 1e6 for name, seconds in (beside or {}).items()},
                            "launches": launches or {}, **more})  # fmt: skip

    def asked(
        self,
        figure: str,
        wanted: float,
        has: dict[str, float],
        unit: str,
        at_most: bool = False,
        predicted: str | None = None,
    ) -> None:
        """A figure with what was asked of it, for each backend, and what the code was predicted to reach."""
        met = {name: value <= wanted if at_most else value >= wanted for name, value in has.items()}
        asked = f"{'≤' if at_most else '≥'} {wanted:g} {unit}".strip()
        self._add("asked", {"figure": figure, "asked": asked, "predicted": predicted, "has": has, "met": met})

    def could_not_run(self, what: str, why: str) -> None:
        self._add("could_not_run", {"what": what, "because": why})

    def lost(self, backend: str | None) -> None:
        """The backend at whose call the device stopped working in this process; None where it was none of ours."""
        self.found["lost"] = backend
        self._write()

    def _add(self, kind: str, row: dict) -> None:
        self.found[kind].append(row)
        self._write()

    def _write(self) -> None:
        waiting = self.path.with_suffix(".part")
        waiting.write_text(json.dumps(self.found))
        waiting.replace(self.path)
