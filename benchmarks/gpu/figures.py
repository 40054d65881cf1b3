"""The results of one part of `benchmarks.gpu`, written after every figure: a part that is stopped keeps its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.common.tables import write_files


class Figures:
    """Rows for `benchmarks.gpu`, which reads them from the JSON file `path`."""

    def __init__(self, path: Path):
        self.path = path
        self.found: dict[str, Any] = {"limits": None, "times": [], "targets": [], "could_not_run": [], "lost": None}
        self._write()

    def limits(self, limits: dict[str, float | None]) -> None:
        """`device.Limits` as measured in this part."""
        self.found["limits"] = limits
        self._write()

    def time(
        self,
        case: str,
        floor: tuple[float, str],
        ours: dict[str, float],
        peers: dict[str, float] | None = None,
        launches: dict[str, int] | None = None,
        **more: Any,
    ) -> None:
        """Seconds of each backend and of its peers, with a floor (seconds, explanation)."""
        self._add("times", {"case": case, "floor_us": floor[0] * 1e6, "floor_model": floor[1],
                            "us": {name: seconds * 1e6 for name, seconds in ours.items()},
                            "over_floor": {name: seconds / floor[0] for name, seconds in ours.items()},
                            "peers_us": {name: seconds * 1e6 for name, seconds in (peers or {}).items()},
                            "launches": launches or {}, **more})  # fmt: skip

    def target(
        self,
        figure: str,
        wanted: float,
        values: dict[str, float],
        unit: str,
        at_most: bool = False,
        predicted: str | None = None,
    ) -> None:
        """A figure of each backend, its target, and what the code was predicted to reach."""
        met = {name: value <= wanted if at_most else value >= wanted for name, value in values.items()}
        target = f"{'≤' if at_most else '≥'} {wanted:g} {unit}".strip()
        self._add("targets", {"figure": figure, "target": target, "predicted": predicted, "values": values, "met": met})

    def could_not_run(self, what: str, reason: str) -> None:
        self._add("could_not_run", {"what": what, "reason": reason})

    def lost(self, backend: str | None) -> None:
        """Notes the backend at whose call the device stopped working in this process; None where it was a peer's."""
        self.found["lost"] = backend
        self._write()

    def _add(self, kind: str, row: dict) -> None:
        self.found[kind].append(row)
        self._write()

    def _write(self) -> None:
        write_files(self.path.parent, {self.path.name: json.dumps(self.found)})
