"""Runs random calls in a process of its own, so that a crash, a hang or exhausted memory is one failed call.

`python -m python_tests.support.fuzz FILE SUBJECT FIRST COUNT` calls the subject with the seeds FIRST, FIRST + 1, ...;
FILE holds the seed of the latest call. The first fault ends it with exit code 1.
"""

import argparse
import mmap
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
SECONDS = 30
"""The most that one call may take."""
MEMORY = 2 << 30
"""The most that all calls together may allocate at a time."""


def subjects() -> dict[str, Callable[[int], str | None]]:
    """What can be fuzzed: name -> a function of the seed that returns what is wrong, or None."""
    from python_tests.support import fuzz_files, fuzz_functions, fuzz_ops

    return {
        f"{module.__name__.rpartition('_')[2]}.{name}": lambda seed, name=name, module=module: module.fault_of(
            name, seed
        )
        for module, names in (
            (fuzz_ops, fuzz_ops.OPS),
            (fuzz_functions, fuzz_functions.FUNCTIONS),
            (fuzz_files, fuzz_files.FORMATS),
        )
        for name in names
    }


def run(subject: str, first: int, count: int, folder: Path) -> str | None:
    """What went wrong with the calls of these seeds in a new process, with the seed; None where nothing did."""
    at = folder / f"{subject}.seed"
    command = [sys.executable, "-m", "python_tests.support.fuzz", str(at), subject, str(first), str(count)]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, check=False
    )
    if done.returncode == 0:
        return None
    ended = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    seed = int.from_bytes(at.read_bytes(), "little") if at.exists() else None
    return f"{subject}, seed {seed}, ended with {ended}: {(done.stdout + done.stderr)[-4000:]}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("subject")
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    fault_of = subjects()[given.subject]
    fault_of(given.first)  # imports what it needs
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    given.file.write_bytes(bytes(8))
    with open(given.file, "r+b") as file, mmap.mmap(file.fileno(), 8) as latest:
        for seed in range(given.first, given.first + given.count):
            latest[:] = seed.to_bytes(8, "little")  # the kernel keeps it whatever becomes of this process
            signal.alarm(SECONDS)
            fault = fault_of(seed)
            signal.alarm(0)
            if fault is not None:
                print(fault)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
