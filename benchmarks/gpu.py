"""One command for a machine with a GPU: builds the module if it is missing, measures and tests everything there.

    python benchmarks/gpu.py --out DIR [--minutes 10]

Writes DIR/gpu.json and DIR/gpu.md: each time over its floor, what was asked of it, the tests' outcome, and what could
not run and why. Each part is a process with a time limit, and both files are written after each: whatever hangs or
fails, the others are there and the command ends within its minutes. With `--device cpu --small` the same parts run
without a GPU, on the backends native and reference, which shows that the command works and no more.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BACKENDS = {"cuda": ("cuda", "triton"), "cpu": ("native", "reference")}
SPEED = ("bandwidth", "best_of_k", "colours", "projection", "line_search", "training", "draws", "noise", "way_back")
SANITIZER = ("memcheck", "racecheck", "initcheck")
GRACE = 5  # seconds that a process has to end when it is asked to, and again when it is told to
LEAST = 2  # seconds under which a part is not begun
_LAST_LINES = 8


class CouldNotRun(Exception):
    """Why a part has no result."""


class Part(NamedTuple):
    """`run(limit)` gives rows for `Results.add`, in so many seconds."""

    name: str
    run: Callable[[float], dict[str, list]]
    limit: float


class Results:
    """What was found, written to `out` after every addition."""

    def __init__(self, out: Path, backends: Sequence[str], machine: dict[str, Any]):
        self.out, self.backends, self.machine = out, backends, machine
        self.rows: dict[str, list[dict]] = {kind: [] for kind in (
            "limits", "asked", "times", "checks", "failures", "could_not_run", "parts")}
        out.mkdir(parents=True, exist_ok=True)
        self.write()

    def add(self, **rows: list[dict]) -> None:
        for kind, more in rows.items():
            self.rows[kind] += more
        self.write()

    def write(self) -> None:
        content = {"machine": self.machine, "backends": self.backends, **self.rows}
        for name, text in (("gpu.json", json.dumps(content, indent=1) + "\n"), ("gpu.md", self.markdown())):
            waiting = self.out / f"{name}.part"
            waiting.write_text(text, encoding="utf-8")
            waiting.replace(self.out / name)

    def markdown(self) -> str:
        device = self.machine.get("device") if self.backends == BACKENDS["cuda"] else None
        lines = [f"# Benchmarks and tests on {device or 'a CPU: a trial of the command, no figures'}", ""]
        lines += [f"- {name}: {value}" for name, value in self.machine.items() if value is not None]
        lines += _table("What was asked", ["figure", "asked", *self.backends], [
            [row["figure"], row["asked"], *(_verdict(row, name) for name in self.backends)]
            for row in self.rows["asked"]])
        columns = [*(f"{name} μs" for name in self.backends), *(f"{name} / floor" for name in self.backends),
                   *(f"{name} launches" for name in self.backends)]
        lines += _table("Times", ["case", "floor μs", "floor", *columns, "beside, μs"], [
            [row["case"], _number(row["floor_us"]), row["floor_is"],
             *(_number(row[kind].get(name)) for kind in ("us", "over_floor", "launches") for name in self.backends),
             ", ".join(f"{name} {_number(value)}" for name, value in row["beside_us"].items())]
            for row in self.rows["times"]])
        lines += _table("Limits", ["in the part", "copy GB/s", "read GB/s", "a launch μs"], [
            [row["part"], _number(row["copy"] / 1e9), _number(row["read"] / 1e9), _number(row["launch"] * 1e6)]
            for row in self.rows["limits"]])
        lines += _table("Checks", ["check", "passed", "failed", "skipped"], [
            [row["check"], *(str(row[kind]) for kind in ("passed", "failed", "skipped"))]
            for row in self.rows["checks"]])
        lines += _list("Failed", [f"{row['name']}: {row['last_lines'][-1] if row['last_lines'] else 'no word'}"
                                  for row in self.rows["failures"]])
        lines += _list("Could not run", [f"could not run: {row['what']} because {row['because']}"
                                         for row in self.rows["could_not_run"]])
        lines += _table("Parts", ["part", "seconds", "outcome"], [
            [row["part"], f"{row['seconds']:.0f}", row["outcome"]] for row in self.rows["parts"]])
        return "\n".join(lines) + "\n"


def _table(title: str, columns: list[str], rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in (columns, *rows)]
    head, *body = ["| " + " | ".join(row) + " |" for row in cells]
    return ["", f"## {title}", "", head, "|" + " --- |" * len(columns), *body]


def _list(title: str, items: list[str]) -> list[str]:
    return ["", f"## {title}", "", *("- " + item.replace("\n", " ") for item in items)] if items else []


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _verdict(row: dict, name: str) -> str:
    if name not in row["has"]:
        return "not measured"
    return f"{_number(row['has'][name])}, {'met' if row['met'][name] else 'not met'}"


def run_parts(parts: Sequence[Part], results: Results, ends: float) -> None:
    """Each part in its turn, until `ends` (of time.monotonic): what raises or hangs is reported, and the next runs."""
    for part in parts:
        began = time.monotonic()
        limit = min(part.limit, ends - began)
        outcome = "done"
        try:
            if limit < LEAST:
                raise CouldNotRun("out of time")
            rows = part.run(limit)
            results.add(**rows)
            if rows.get("could_not_run"):
                outcome = f"done, but for {len(rows['could_not_run'])} of its parts"
        except Exception as error:
            outcome = str(error) if isinstance(error, CouldNotRun) else f"{type(error).__name__}: {error}"
            results.add(could_not_run=[{"what": part.name, "because": outcome}])
        seconds = time.monotonic() - began
        results.add(parts=[{"part": part.name, "seconds": round(seconds, 1), "outcome": outcome}])
        print(f"{part.name}: {outcome}, {seconds:.0f} s", flush=True)


def run_child(command: Sequence[str | Path], limit: float, log: Path, **environment: str) -> int | None:
    """The exit status of a process and what it started, in a session of their own; None where they were stopped after
    `limit` seconds, politely first, so that pytest writes what it has. All output goes to `log`. `_` leaves off."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT,
            start_new_session=True,
            # PYTEST_ADDOPTS: what is asked of a run of pytest as a whole is not asked of its parts
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTEST_ADDOPTS": "", **environment},
        )  # fmt: skip
        status = None
        try:
            status = process.wait(max(limit - 2 * GRACE, limit / 2))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGINT)
                process.wait(min(GRACE, limit / 4))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):  # a driver may hold it longer than we wait
                process.wait(min(GRACE, limit / 4))
    return status


def last_lines(log: Path) -> list[str]:
    text = log.read_text(errors="replace") if log.exists() else ""
    return [line for line in text.splitlines() if line.strip()][-_LAST_LINES:]


def why(status: int | None, limit: float, log: Path) -> str:
    """What a process that did not end well says of it."""
    # of an interrupt's traceback the line where it was
    telling = [line.strip() for line in last_lines(log) if line.strip(" ^~") not in ("", "KeyboardInterrupt")]
    said = telling[-1][:400] if telling else "nothing was printed"
    return f"out of its {limit:.0f} s, after: {said}" if status is None else f"it ended with {status}: {said}"


def build(device: str, kept: Path, limit: float) -> dict[str, list]:
    """The modules this device needs, built where one does not import."""
    modules = ["_native"] + ["_native_cuda"] * (device == "cuda")
    test = [sys.executable, "-c", f"from robustperf import {', '.join(modules)}"]
    began, log = time.monotonic(), kept / "build.log"
    if run_child(test, limit, log) == 0:
        log.unlink()
        return {}
    command = [sys.executable, "-m", "pip", "install", "-v", "--no-build-isolation", "--no-deps", "-e", "."]
    left = limit - (time.monotonic() - began)
    status = run_child(command, left, log)
    if status != 0:
        raise CouldNotRun(f"{why(status, left, log)} (all of it in {log.name})")
    tried = kept / "import.log"
    if (status := run_child(test, GRACE * 6, tried)) != 0:
        raise CouldNotRun(f"it is built and does not import: {why(status, GRACE * 6, tried)} (see {log.name})")
    log.unlink()
    tried.unlink()
    return {}


def operations(backend: str, device: str, folder: Path, limit: float) -> dict[str, list]:
    """Every operation once, beside the reference."""
    out, log = folder / f"operations_{backend}.json", folder / f"operations_{backend}.log"
    command = [sys.executable, HERE / "gpu_operations.py", "--backend", backend, "--device", device, "--out", out]
    status = run_child(command, limit, log)
    outcomes = json.loads(out.read_text()) if out.exists() else []
    if not outcomes:
        raise CouldNotRun(why(status, limit, log))
    wrong = [{"name": f"{each['operation']}, {backend}", "last_lines": [each["wrong"]]}
             for each in outcomes if each["wrong"]]
    rows = {"checks": [{"check": f"every operation once, {backend}", "passed": len(outcomes) - len(wrong),
                        "failed": len(wrong), "skipped": 0}], "failures": wrong}
    if status not in (0, 1):
        rows["could_not_run"] = [{"what": f"the operations after {outcomes[-1]['operation']}, {backend}",
                                  "because": why(status, limit, log)}]
    return rows


def speed(name: str, device: str, small: bool, folder: Path, limit: float) -> dict[str, list]:
    """One part of gpu_speed.py, as far as it came."""
    out, log = folder / f"{name}.json", folder / f"{name}.log"
    command = [sys.executable, HERE / "gpu_speed.py", name, "--device", device, "--out", out, *["--small"] * small]
    status = run_child(command, limit, log)
    found = json.loads(out.read_text()) if out.exists() else {}
    limits = found.pop("limits", None)
    rows = {**found, "limits": [{"part": name, **limits}] if limits else []}
    if status != 0:
        rows["could_not_run"] = [*rows.get("could_not_run", []),
                                 {"what": f"the rest of {name}" if found.get("times") else name,
                                  "because": why(status, limit, log)}]
    return rows


def test_files(device: str, small: bool) -> list[Path]:
    """Those with a test that runs on a GPU; on a CPU one or a few show that it works."""
    tests = ROOT / "python_tests"
    if device == "cpu":
        return [tests / "ops" / f"test_{name}.py" for name in ("logit_gap", "draws")[: 1 if small else 2]]
    return sorted(file for file in tests.rglob("test_*.py")
                  if re.search(r"^OP = |mark\.gpu", file.read_text(), re.MULTILINE))


def tests(backend: str, device: str, small: bool, folder: Path, limit: float) -> dict[str, list]:
    """`pytest -m gpu`, each file in a process of its own: a fault in one leaves the GPU to the others. What names
    neither backend is run with the first."""
    ends = time.monotonic() + limit
    first, second = BACKENDS[device]
    which = second if backend == second else f"not {second}"

    def run(file: Path) -> dict[str, list]:
        left = ends - time.monotonic()
        name = f"{file.relative_to(ROOT)}, {backend}"
        report, log = folder / f"{file.stem}_{backend}.xml", folder / f"{file.stem}_{backend}.log"
        if left < LEAST:
            return {"could_not_run": [{"what": name, "because": "out of time"}]}
        status = run_child([sys.executable, "-m", "pytest", "-q", "-m", "gpu" if device == "cuda" else "not gpu", "-k",
                            which, "-p", "no:cacheprovider", f"--junitxml={report}", file], left, log)
        try:
            counts, failures = read_junit(report)
        except (OSError, ElementTree.ParseError):
            return {"could_not_run": [{"what": name, "because": why(status, left, log)}]}
        rows = {"checks": [{"check": name, **counts}] if any(counts.values()) else [],
                "failures": failures}
        if status not in (0, 1, 5):  # 5: no test of this backend there
            rows["could_not_run"] = [{"what": f"the rest of {name}", "because": why(status, left, log)}]
        return rows

    with ThreadPoolExecutor(max(1, min(6, (os.cpu_count() or 1) // 2))) as pool:
        found = list(pool.map(run, test_files(device, small)))
    return {kind: [row for rows in found for row in rows.get(kind, [])]
            for kind in ("checks", "failures", "could_not_run")}


def read_junit(path: Path) -> tuple[dict[str, int], list[dict]]:
    """({passed, failed, skipped}, the failures with their last lines) of a junit file."""
    counts, failures = {"passed": 0, "failed": 0, "skipped": 0}, []
    for case in ElementTree.parse(path).iter("testcase"):
        broken = [child for child in case if child.tag in ("failure", "error")]
        if broken:
            counts["failed"] += 1
            text = (broken[0].text or broken[0].get("message") or "").strip().splitlines()
            failures.append({"name": f"{case.get('classname')}::{case.get('name')}", "last_lines": text[-_LAST_LINES:]})
        else:
            counts["skipped" if case.find("skipped") is not None else "passed"] += 1
    return counts, failures


def sanitizer(tool: str, device: str, folder: Path, limit: float) -> dict[str, list]:
    """compute-sanitizer on every operation."""
    if device == "cpu":
        raise CouldNotRun("this is not a GPU")
    places = [os.path.join(home, "bin") for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if home]
    found = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=os.pathsep.join(places))
    if found is None:
        raise CouldNotRun("there is no compute-sanitizer on the PATH, in CUDA_HOME/bin or in /usr/local/cuda/bin")
    log = folder / f"{tool}.log"
    command = [found, "--tool", tool, "--error-exitcode", "99", "--print-limit", "20", sys.executable,
               HERE / "gpu_operations.py", "--backend", "cuda"]
    # torch's allocator hands out parts of large blocks, between which no tool sees an end
    status = run_child(command, limit, log, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    reports = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("=====")]
    summaries = [line.strip("= ") for line in reports if "SUMMARY" in line]
    ran = log.read_text(errors="replace").count("as the reference")
    if status not in (0, 1, 99) or not summaries or not ran:  # 1: an operation gave something else
        raise CouldNotRun(why(status, limit, log))
    clean = status != 99
    return {"checks": [{"check": f"compute-sanitizer {tool}, {ran} operations: {summaries[-1]}",
                        "passed": int(clean), "failed": int(not clean), "skipped": 0}],
            "failures": [] if clean else [{"name": f"compute-sanitizer {tool}",
                                           "last_lines": [*reports[:30], summaries[-1]]}]}  # fmt: skip


def describe(folder: Path) -> dict[str, Any]:
    """What `gpu_machine.py` prints; CouldNotRun where it fails."""
    log = folder / "machine.log"
    status = run_child([sys.executable, HERE / "gpu_machine.py"], 90, log)
    if status != 0:
        raise CouldNotRun(f"the machine could not be looked at: {why(status, 90, log)}")
    return json.loads(last_lines(log)[-1])


def plan(device: str, small: bool, minutes: float, kept: Path, folder: Path) -> list[Part]:
    """The parts in their order, with their shares of the time."""
    unit, names = 60 * minutes / 100, BACKENDS[device]
    parts = [Part("build", partial(build, device, kept), 60 * unit)]
    parts += [Part(f"every operation once, {name}", partial(operations, name, device, folder), 10 * unit)
              for name in names]
    # the colours compile long programs
    parts += [Part(name, partial(speed, name, device, small, folder), (20 if name == "colours" else 10) * unit)
              for name in SPEED]
    parts += [Part(f"tests, {name}", partial(tests, name, device, small, folder), 20 * unit) for name in names]
    return parts + [Part(f"compute-sanitizer {tool}", partial(sanitizer, tool, device, folder), 20 * unit)
                    for tool in SANITIZER]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
    options.add_argument("--minutes", type=float, default=10.0, help="after which it has ended")
    options.add_argument("--device", choices=BACKENDS, default="cuda")
    options.add_argument("--small", action="store_true", help="sizes that show that it runs, and no more")
    arguments = options.parse_args()
    if not arguments.minutes > 0:
        options.error(f"--minutes: expected a number above 0, got {arguments.minutes:g}")
    ends = time.monotonic() + 60 * arguments.minutes - 2 * GRACE
    with TemporaryDirectory(prefix="robustperf-gpu-") as name:
        folder = Path(name)
        try:
            machine = describe(folder)
            if arguments.device == "cuda" and machine["device"] is None:
                raise CouldNotRun("there is no GPU that torch can use here: nothing is measured and nothing written; "
                                  "--device cpu --small shows that the command works")
        except CouldNotRun as reason:
            print(reason, file=sys.stderr)
            return 2
        results = Results(arguments.out, BACKENDS[arguments.device], machine)
        first, *rest = plan(arguments.device, arguments.small, arguments.minutes, arguments.out, folder)
        run_parts([first], results, ends)
        with suppress(CouldNotRun):
            results.machine = describe(folder)  # the package's version is known once it is built
        results.add(could_not_run=[{"what": "margins beside foolbox", "because": "it reads MNIST: "
                                    "python benchmarks/speed/margins.py"}])
        run_parts(rest, results, ends)
    print(f"{arguments.out / 'gpu.md'}: {len(results.rows['failures'])} failures, "
          f"{len(results.rows['could_not_run'])} things could not run")
    return 1 if results.rows["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
