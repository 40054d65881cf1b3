"""Child processes with a time limit, and lists of work that several of them share.

Imports nothing beyond Python: the program that starts and stops the others must not fail with them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu.shared_work import has_ended, read_names, read_outcomes, read_started

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = {"cuda": ("cuda", "triton"), "cpu": ("native", "reference")}
"""The backends measured on each device."""
CONTEXT_LOST = 75
"""Exit status of a process in which the device no longer works, as after an illegal access; a new process has to do
the rest of its work."""
GRACE = 2  # seconds that a process has to end after SIGINT, and again after SIGKILL
MIN_SECONDS = 2  # with less left, nothing is started
_LAST_LINES = 8
_running: set[subprocess.Popen] = set()
_stopped = False


class CouldNotRun(Exception):
    """Says why a part has no result."""


def run_child(command: Sequence[object], limit: float, log: Path, **environment: str) -> int | None:
    """Runs a command in a process group of its own and returns its exit status; None where the group was stopped after
    `limit` seconds, by SIGINT first. Appends all output to `log`."""
    if _stopped:
        raise CouldNotRun("the run was stopped")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # a group, not a session, so that whatever ends our session ends the children too
    group = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT,
            # PYTEST_ADDOPTS is for a run of pytest as a whole, not for its parts
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTEST_ADDOPTS": "", **environment},
            **group,
        )  # fmt: skip
        _running.add(process)
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
            with suppress(subprocess.TimeoutExpired):  # a driver may hold it longer
                process.wait(min(GRACE, limit / 4))
            _running.discard(process)
    return status


def stop_all() -> None:
    """Kills every running child, and lets none start."""
    global _stopped
    _stopped = True
    for process in list(_running):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def last_lines(log: Path) -> list[str]:
    text = log.read_text(errors="replace") if log.exists() else ""
    return [line for line in text.splitlines() if line.strip()][-_LAST_LINES:]


def why(status: int | None, limit: float, log: Path) -> str:
    """How a process failed, with the last line that it printed."""
    # of the traceback of an interrupt, the line that it interrupted
    lines = [line.strip() for line in last_lines(log) if line.strip(" ^~") not in ("", "KeyboardInterrupt")]
    last = lines[-1][:400] if lines else "nothing was printed"
    return f"out of its {limit:.0f} s, after: {last}" if status is None else f"it ended with {status}: {last}"


class Shared(NamedTuple):
    """The results of a shared list.

    Attributes:
        outcomes: by name, what a process recorded.
        died: by name, how the process ended that had taken it and recorded nothing.
        not_reached: names that no process took, or that were stopped when the time was over.
        statuses: exit statuses of all processes.
        reasons: why a process ended before it took a name.
    """

    outcomes: dict[str, dict]
    died: dict[str, str]
    not_reached: list[str]
    statuses: list[int | None]
    reasons: list[str]


def run_shared(
    command: Sequence[object], processes: int, folder: Path, name: str, limit: float, **environment: str
) -> Shared:
    """Runs `command` in several processes that share a list of work (`shared_work.SharedWork`).

    A process that ends before the list does is replaced by one that takes what is left, unless it took nothing. Their
    output is appended to `folder`/name-NUMBER.log.
    """
    work, ends = folder / f"{name}.work", time.monotonic() + limit
    work.mkdir()
    died, stopped, statuses, reasons = {}, set(), [], []

    def keep_running(number: int) -> None:
        log, before = folder / f"{name}-{number}.log", 0
        while (left := ends - time.monotonic()) >= MIN_SECONDS:
            status = run_child(
                [*command, "--share", work, "--process", number, "--processes", processes], left, log, **environment
            )
            statuses.append(status)
            started = read_started(work, number)
            if status is None:
                stopped.update(started[-1:])
            elif not has_ended(work, number):
                reason = why(status, left, log)
                if len(started) == before:
                    reasons.append(reason)
                else:
                    died[started[-1]] = reason
                    before = len(started)
                    continue
            return

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(keep_running, range(processes)))
    outcomes = {outcome.pop("name"): outcome for outcome in read_outcomes(work)}
    started = set(read_started(work))
    left = [each for each in read_names(work) if each not in outcomes and (each not in started or each in stopped)]
    return Shared(outcomes, {each: how for each, how in died.items() if each not in outcomes}, left, statuses, reasons)
