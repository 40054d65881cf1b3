"""The parts of `benchmarks.gpu`: each is a function of its time limit that returns rows for `Results.add`.

Every part works in child processes, so that one that hangs or dies takes no other part's results with it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from sysconfig import get_config_var
from typing import Any, NamedTuple

from benchmarks.gpu.processes import (
    BACKENDS,
    CONTEXT_LOST,
    MIN_SECONDS,
    ROOT,
    CouldNotRun,
    Shared,
    last_lines,
    run_child,
    run_shared,
    why,
)

Rows = dict[str, list[dict]]
PACKAGE = ROOT / "robustperf"
# one thread each, torch.compile included: the other processes are busy too
SINGLE_THREADED = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": "1"}
_LOADS = """
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
spec = PathFinder.find_spec(sys.argv[2], [sys.argv[1]])
sys.exit("it does not exist" if spec is None else module_from_spec(spec) is None)
"""
# robustperf.__version__ is read from robustperf.egg-info, or from where the package is installed
_HAS_METADATA = "from importlib.metadata import version; version('robustperf')"
_METADATA = [[sys.executable, "setup.py", "-q", "egg_info"]]


class Place(NamedTuple):
    """How and where the parts run.

    Attributes:
        device: "cuda", or "cpu" for a trial.
        small: use sizes that only show that the code runs.
        folder: for logs and for files that the processes exchange.
        cores: of the processor.
        modules: a folder of prebuilt modules, or None.
    """

    device: str
    small: bool
    folder: Path
    cores: int
    modules: Path | None = None

    def processes(self, fraction: float) -> int:
        return max(1, int(self.cores * fraction))


def modules_for(device: str) -> list[str]:
    return ["_native"] + ["_native_cuda"] * (device == "cuda")


def prebuilt(folder: Path, device: str) -> list[Path]:
    """The modules for this Python in `folder`; CouldNotRun where one is missing."""
    suffix = get_config_var("EXT_SUFFIX")
    found = [folder / f"{name}{suffix}" for name in modules_for(device)]
    if missing := [path.name for path in found if not path.is_file()]:
        raise CouldNotRun(
            f"--modules {folder}: expected {', '.join(missing)} in it, found "
            f"{', '.join(sorted(path.name for path in folder.glob('*'))) or 'nothing'}"
        )
    return found


def build(place: Place, limit: float) -> Rows:
    """Provides each module that this device needs: from `place.modules`, as it is in the package, or built now; and the
    package's metadata."""
    ends = time.monotonic() + limit
    if place.modules:
        for path in prebuilt(place.modules, place.device):
            shutil.copy2(path, PACKAGE / path.name)
    not_built = []
    for name in (*modules_for(place.device), "metadata"):
        log, metadata = place.folder / f"build_{name.removeprefix('_')}.log", name == "metadata"
        loads = [sys.executable, "-c", *([_HAS_METADATA] if metadata else [_LOADS, PACKAGE, name])]
        if run_child(loads, ends - time.monotonic(), log) == 0:
            continue
        for command in (*(_METADATA if metadata else _build_commands(name, place.folder / f"build{name}")), loads):
            left = ends - time.monotonic()
            if (status := run_child(command, left, log)) != 0:
                reason = f"{why(status, left, log)} (all in {log.name})"
                not_built.append({"what": f"the build of {name}", "reason": reason})
                break
    return {"could_not_run": not_built}


def _build_commands(name: str, folder: Path) -> list[list[object]]:
    """Commands that build one module and install it in the package."""
    import pybind11

    configure = [
        "cmake",
        "-S",
        ROOT,
        "-B",
        folder,
        "-G",
        "Ninja",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DROBUSTPERF_MODULE={name}",
    ]
    if name == "_native_cuda":
        nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
        configure += [f"-DCMAKE_CUDA_COMPILER={nvcc}"] * bool(nvcc)
    return [configure, ["cmake", "--build", folder], ["cmake", "--install", folder, "--prefix", PACKAGE]]


def _shared_rows(what: str, found: Shared, log: str) -> Rows:
    """Rows of any shared list: names in which a process died, and names not reached."""
    rows = {
        "failures": [
            {"name": f"{name}, {what}", "last_lines": [f"its process ended: {how} (all in {log})"]}
            for name, how in found.died.items()
        ],
        "not_reached": [{"what": what, "names": found.not_reached}] if found.not_reached else [],
    }
    if found.reasons:
        rows["could_not_run"] = [
            {
                "what": f"{len(found.reasons)} of the processes of {what}",
                "reason": f"{found.reasons[0]} (all in {log})",
            }
        ]
    return rows


def operations(place: Place, backend: str, fraction: float, limit: float) -> Rows:
    """Every operation once, compared with the reference on the CPU."""
    name = f"operations_{backend}"
    command = [sys.executable, "-m", "benchmarks.gpu.operations", "--backend", backend, "--device", place.device]
    command += ["--small"] * place.small
    found = run_shared(command, place.processes(fraction), place.folder, name, limit, **SINGLE_THREADED)
    if not found.outcomes and not found.died:
        raise CouldNotRun(_no_outcome(found, limit, place.folder / f"{name}-0.log"))
    return operation_rows(backend, found, f"{name}-*.log")


def operation_rows(backend: str, found: Shared, log: str) -> Rows:
    wrong = [
        {"name": f"{name}, {backend}", "last_lines": [outcome["wrong"]]}
        for name, outcome in found.outcomes.items()
        if outcome["wrong"]
    ]
    rows = _shared_rows(f"every operation once, {backend}", found, log)
    rows["failures"] += wrong
    rows["checks"] = [
        {
            "check": f"every operation once, {backend}",
            "passed": len(found.outcomes) - len(wrong),
            "failed": len(wrong) + len(found.died),
            "skipped": 0,
            "not_reached": len(found.not_reached),
        }
    ]
    return rows


def _no_outcome(found: Shared, limit: float, log: Path) -> str:
    return found.reasons[0] if found.reasons else why(None, limit, log)


def speed(place: Place, name: str, compiles: bool, limit: float) -> Rows:
    """The figures of one part of speed.py, as far as it got.

    Where the device stops working at a call of one backend, the part runs once more without it for the other's
    figures.
    """
    ends, out, log = time.monotonic() + limit, place.folder / f"{name}.json", place.folder / f"{name}.log"
    command = [sys.executable, "-m", "benchmarks.gpu.speed", name, "--device", place.device, "--out", out]
    command += ["--small"] * place.small + ["--no-compile"] * (not compiles)
    status = run_child(command, limit, log)
    found = _figures(out)
    lost = found.pop("lost", None)
    left = ends - time.monotonic()
    if status == CONTEXT_LOST and lost and left >= MIN_SECONDS:
        out.unlink()
        status = run_child([*command, "--without", lost], left, log)
        again = _figures(out)
        again.pop("lost", None)
        found = merged(found, again)
    limits = found.pop("limits", None)
    rows = {**found, "limits": [{"part": name, **limits}] if limits else []}
    if status != 0:
        rows["could_not_run"] = [
            *rows.get("could_not_run", []),
            {"what": f"the rest of {name}" if found.get("times") else name, "reason": why(status, limit, log)},
        ]
    return rows


def _figures(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The figures of two runs of a part: one row for each case, the second's values where both have some."""
    rows: dict[str, Any] = {"limits": second.get("limits") or first.get("limits")}
    for kind, key in (("times", "case"), ("targets", "figure"), ("could_not_run", "what")):
        by_name: dict[str, dict] = {}
        for row in (*first.get(kind, ()), *second.get(kind, ())):
            before = by_name.get(row[key], {})
            by_name[row[key]] = {
                name: {**before.get(name, {}), **value} if isinstance(value, dict) else value
                for name, value in row.items()
            }
        rows[kind] = list(by_name.values())
    return rows


def test_files(device: str, small: bool) -> list[Path]:
    """Files with tests for a GPU; on a CPU one or two of the others, to show that it works."""
    tests = ROOT / "python_tests"
    if device == "cpu":
        return [tests / "ops" / f"test_{name}.py" for name in ("logit_gap", "draws")[: 1 if small else 2]]
    return sorted(
        file for file in tests.rglob("test_*.py") if re.search(r"^OP = |mark\.gpu", file.read_text(), re.MULTILINE)
    )


def tests(place: Place, fraction: float, limit: float, files: Sequence[Path] | None = None) -> Rows:
    """`pytest -m gpu`, shared by several processes."""
    chosen = ["-m", "gpu"] if place.device == "cuda" else ["-m", "not gpu", "-k", "native or reference"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--no-summary",
        "-p",
        "benchmarks.gpu.shared_tests",
        "-p",
        "no:cacheprovider",
        "-o",
        "faulthandler_timeout=60",
        "--device",
        place.device,
        *chosen,
        *(files or test_files(place.device, place.small)),
    ]
    found = run_shared(command, place.processes(fraction), place.folder, "tests", limit, **SINGLE_THREADED)
    if not found.outcomes and not found.died:
        raise CouldNotRun(_no_outcome(found, limit, place.folder / "tests-0.log"))
    return test_rows(found, BACKENDS[place.device], "tests-*.log")


def test_rows(found: Shared, backends: tuple[str, str], log: str) -> Rows:
    """A row for each file and backend; tests that name neither backend count as the first's."""
    counts: dict[str, Counter] = {}
    named = [
        *((name, outcome["outcome"]) for name, outcome in found.outcomes.items()),
        *((name, "failed") for name in found.died),
        *((name, "not_reached") for name in found.not_reached),
    ]
    for name, outcome in named:
        second = re.search(rf"(?<![a-z]){backends[1]}(?![a-z])", name)
        check = f"{name.partition('::')[0]}, {backends[1] if second else backends[0]}"
        counts.setdefault(check, Counter())[outcome] += 1
    rows = _shared_rows("tests", found, log)
    rows["failures"] += [
        {"name": name, "last_lines": outcome["last_lines"]}
        for name, outcome in found.outcomes.items()
        if outcome["outcome"] == "failed"
    ]
    rows["checks"] = [
        {"check": check, **{kind: counts[check][kind] for kind in ("passed", "failed", "skipped", "not_reached")}}
        for check in sorted(counts)
    ]
    return rows


def sanitizer(place: Place, tool: str, fraction: float, limit: float) -> Rows:
    """compute-sanitizer on every operation of the CUDA module; torch's kernels are not instrumented."""
    if place.device == "cpu":
        raise CouldNotRun("it needs a GPU")
    homes = [os.path.join(home, "bin") for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if home]
    program = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=os.pathsep.join(homes))
    if program is None:
        raise CouldNotRun("compute-sanitizer was not found on the PATH, in CUDA_HOME/bin or in /usr/local/cuda/bin")
    # before 2024 the filter had another name
    known = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=MIN_SECONDS * 5)
    name_filter = "--kernel-regex" if "--kernel-name" not in known.stdout + known.stderr else "--kernel-name"
    command = [
        program,
        "--tool",
        tool,
        "--error-exitcode",
        "99",
        "--print-limit",
        "20",
        name_filter,
        "kns=robustperf",
        "--target-processes",
        "application-only",
        "--check-exit-code",
        "no",
        "--destroy-on-device-error",
        "kernel",  # and the context keeps working
        sys.executable,
        "-m",
        "benchmarks.gpu.operations",
        "--backend",
        "cuda",
    ]
    # torch's allocator hands out parts of large blocks, whose bounds no tool knows
    found = run_shared(
        command,
        place.processes(fraction),
        place.folder,
        tool,
        limit,
        PYTORCH_NO_CUDA_MEMORY_CACHING="1",
        **SINGLE_THREADED,
    )
    logs = sorted(place.folder.glob(f"{tool}-*.log"))
    lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
    reports = [line for line in lines if re.match(r"=+ \S", line)]
    summaries = [line.strip("= ") for line in reports if "SUMMARY" in line]
    reports = [line for line in reports if not re.search("SUMMARY|COMPUTE-SANITIZER", line)]
    if not found.outcomes or not (summaries or reports):
        raise CouldNotRun(_no_outcome(found, limit, logs[0]) if logs else "it did not start")
    clean = 99 not in found.statuses and not (None in found.statuses and reports)
    rows = _shared_rows(tool, found, f"{tool}-*.log")
    rows["checks"] = [
        {
            "check": f"compute-sanitizer {tool}, {len(found.outcomes)} operations: {'; '.join(summaries)}",
            "passed": int(clean),
            "failed": int(not clean),
            "skipped": 0,
            "not_reached": len(found.not_reached),
        }
    ]
    if not clean:
        rows["failures"] += [{"name": f"compute-sanitizer {tool}", "last_lines": [*reports[:30], *summaries[-1:]]}]
    return rows


def describe(folder: Path, limit: float) -> dict[str, Any]:
    """The description that `common/machine.py` prints; CouldNotRun where it fails."""
    log = folder / "machine.log"
    status = run_child([sys.executable, "-m", "benchmarks.common.machine"], limit, log)
    if status != 0:
        raise CouldNotRun(f"the machine could not be described: {why(status, limit, log)}")
    return json.loads(last_lines(log)[-1])
