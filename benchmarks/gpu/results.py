"""What `benchmarks/gpu.py` found: JSON, Markdown and all logs, written again after every addition."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tables import markdown, text

KINDS = ("asked", "times", "limits", "checks", "failures", "could_not_run", "not_reached")
LARGEST = 15 * 2**20  # bytes of a file
_SHOWN = 20  # names that the Markdown has of a longer list


class Results:
    """Files in `out`: gpu.json, gpu.md and logs.tgz, each whole at any moment.

    Args:
        parts: (name, limit in seconds) of all that is planned.
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
            for name, data in (
                ("gpu.json", (json.dumps(content, indent=1) + "\n").encode()),
                ("gpu.md", self.markdown().encode()),
                ("logs.tgz", pack(self.logs, LARGEST)),
            ):
                waiting = self.out / f"{name}.part"
                waiting.write_bytes(data)
                waiting.replace(self.out / name)

    def markdown(self) -> str:
        machine = {**self.machine, **self.machine.get("packages", {})}
        lines = [f"# {self.title}", ""]
        lines += [f"- {name}: {value}" for name, value in machine.items() if value and name != "packages"]
        lines += self.asked()
        columns = [
            *(f"{name} μs" for name in self.backends),
            *(f"{name} / floor" for name in self.backends),
            *(f"{name} launches" for name in self.backends),
        ]
        lines += _table(
            "Times",
            ["case", "floor μs", "floor", *columns, "beside, μs"],
            [
                [
                    row["case"],
                    row["floor_us"],
                    row["floor_is"],
                    *(row[kind].get(name) for kind in ("us", "over_floor", "launches") for name in self.backends),
                    ", ".join(f"{name} {text(value)}" for name, value in row["beside_us"].items()),
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
                f"{row['name']}: {row['last_lines'][-1] if row['last_lines'] else 'no word'}"
                for row in self.rows["failures"]
            ],
        )
        lines += _list(
            "Could not run",
            [f"could not run: {row['what']} because {row['because']}" for row in self.rows["could_not_run"]],
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

    def asked(self) -> list[str]:
        return _table(
            "What was asked",
            ["figure", "asked", "predicted from the code", *self.backends],
            [
                [row["figure"], row["asked"], row["predicted"], *(_verdict(row, name) for name in self.backends)]
                for row in self.rows["asked"]
            ],
        )

    def parts_table(self) -> list[str]:
        return _table(
            "Parts",
            ["part", "its limit, s", "seconds", "outcome"],
            [[row["part"], row["limit"], row["seconds"], row["outcome"]] for row in self.parts.values()],
        )


def pack(folder: Path, most: int) -> bytes:
    """A .tar.gz of all the logs in a folder, of at most `most` bytes: where they are more, the middles of the longest
    are left out."""
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
        if packed.tell() <= most or kept < 2:
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
    if name not in row["has"]:
        return "not measured"
    return f"{text(float(row['has'][name]))}, {'met' if row['met'][name] else 'not met'}"
