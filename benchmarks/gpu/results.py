"""The results of a pass of `benchmarks.gpu`: JSON, Markdown and all logs, rewritten after every addition."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.tables import machine_lines, markdown, text, write_files

KINDS = ("targets", "times", "limits", "checks", "failures", "could_not_run", "not_reached")
MAX_BYTES = 15 * 2**20  # of a file
_SHOWN = 20  # names of a longer list that the Markdown has


class Results:
    """Writes gpu.json, gpu.md and logs.tgz in `out`, each replaced atomically.

    Args:
        out: the folder, which is created.
        title: the first line of gpu.md.
        backends: the names of the two columns.
        machine: of `common.machine.describe_machine`.
        parts: (name, limit in seconds) of every planned part.
        logs: the folder whose *.log files are kept.
    """

    def __init__(
        self,
        out: Path,
        title: str,
        backends: Sequence[str],
        machine: dict[str, Any],
        parts: Sequence[tuple[str, float]],
        logs: Path,
    ):
        self.out, self.title, self.backends, self.machine, self.logs = out, title, backends, machine, logs
        self.rows: dict[str, list[dict]] = {kind: [] for kind in KINDS}
        self.parts = {
            name: {"part": name, "limit": round(limit, 1), "seconds": None, "outcome": "not reached"}
            for name, limit in parts
        }
        self._lock = threading.Lock()
        out.mkdir(parents=True, exist_ok=True)
        self.write()

    def add(self, rows: dict[str, list[dict]]) -> None:
        for kind, more in rows.items():
            self.rows[kind] += more
        self.write()

    def part(self, name: str, seconds: float | None, outcome: str) -> None:
        self.parts[name].update(seconds=None if seconds is None else round(seconds, 1), outcome=outcome)
        self.write()

    def write(self) -> None:
        with self._lock:
            content = {
                "title": self.title,
                "machine": self.machine,
                "backends": self.backends,
                **self.rows,
                "parts": list(self.parts.values()),
            }
            files = {
                "gpu.json": json.dumps(content, indent=1) + "\n",
                "gpu.md": self.markdown(),
                "logs.tgz": pack(self.logs, MAX_BYTES),
            }
            write_files(self.out, files)

    def markdown(self) -> str:
        lines = [f"# {self.title}", "", *machine_lines(self.machine), *self.targets()]
        columns = [
            *(f"{name} μs" for name in self.backends),
            *(f"{name} / floor" for name in self.backends),
            *(f"{name} launches" for name in self.backends),
        ]
        lines += _table(
            "Times",
            ["case", "floor μs", "floor", *columns, "peers, μs"],
            [
                [
                    row["case"],
                    row["floor_us"],
                    row["floor_model"],
                    *(row[kind].get(name) for kind in ("us", "over_floor", "launches") for name in self.backends),
                    ", ".join(f"{name} {text(value)}" for name, value in row["peers_us"].items()),
                ]
                for row in self.rows["times"]
            ],
        )
        lines += _table(
            "Limits",
            ["in the part", "copy GB/s", "read GB/s", "a launch μs"],
            [[row["part"], row["copy"] / 1e9, row["read"] / 1e9, row["launch"] * 1e6] for row in self.rows["limits"]],
        )
        lines += _table(
            "Checks",
            ["check", "passed", "failed", "skipped", "not reached"],
            [
                [row[kind] for kind in ("check", "passed", "failed", "skipped", "not_reached")]
                for row in self.rows["checks"]
            ],
        )
        lines += _list(
            "Failed",
            [
                f"{row['name']}: {row['last_lines'][-1] if row['last_lines'] else 'nothing was printed'}"
                for row in self.rows["failures"]
            ],
        )
        lines += _list(
            "Could not run",
            [f"could not run: {row['what']} because {row['reason']}" for row in self.rows["could_not_run"]],
        )
        lines += _list(
            "Not reached",
            [
                f"{row['what']}, {len(row['names'])}: {', '.join(row['names'][:_SHOWN])}"
                f"{', ... (all in gpu.json)' if len(row['names']) > _SHOWN else ''}"
                for row in self.rows["not_reached"]
            ],
        )
        return "\n".join(lines + self.parts_table()) + "\n"

    def targets(self) -> list[str]:
        return _table(
            "Targets",
            ["figure", "target", "predicted from the code", *self.backends],
            [
                [row["figure"], row["target"], row["predicted"], *(_verdict(row, name) for name in self.backends)]
                for row in self.rows["targets"]
            ],
        )

    def parts_table(self) -> list[str]:
        return _table(
            "Parts",
            ["part", "limit, s", "seconds", "outcome"],
            [[row["part"], row["limit"], row["seconds"], row["outcome"]] for row in self.parts.values()],
        )


def pack(folder: Path, max_bytes: int) -> bytes:
    """A .tar.gz of all logs in a folder, of at most `max_bytes`; to fit, the middles of the longest are left out."""
    logs = {path.name: path.read_bytes() for path in sorted(folder.glob("*.log"))}
    kept = max(map(len, logs.values()), default=0)
    while True:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=3) as archive:
            for name, data in logs.items():
                data = _clipped(data, kept)
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        if packed.tell() <= max_bytes or kept < 2:
            return packed.getvalue()
        kept //= 2


def _clipped(data: bytes, kept: int) -> bytes:
    if len(data) <= kept:
        return data
    return b"%s\n[%d bytes are left out]\n%s" % (data[: kept // 2], len(data) - kept, data[len(data) - kept // 2 :])


def _table(title: str, columns: list[str], rows: list[list[Any]]) -> list[str]:
    return ["", f"## {title}", "", *markdown(columns, rows)] if rows else []


def _list(title: str, items: list[str]) -> list[str]:
    return ["", f"## {title}", "", *("- " + item.replace("\n", " ") for item in items)] if items else []


def _verdict(row: dict, name: str) -> str:
    if name not in row["values"]:
        return "not measured"
    return f"{text(float(row['values'][name]))}, {'met' if row['met'][name] else 'not met'}"
