"""What figures were measured on. As a program it prints that as JSON.

Imports nothing at the top that may be missing before the package is built.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("robustperf", "torch", "triton", "numpy", "scikit-learn", "scikit-learn-intelex", "foolbox", "kornia")


def machine() -> dict[str, Any]:
    """Processor, GPU, driver, versions, and the commit that is checked out; None for what is not there."""
    import torch

    there = torch.cuda.is_available()
    nvcc = _output(shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin") or "nvcc", "--version")
    driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or ""
    changed = _output("git", "status", "--porcelain", "--untracked-files=no")
    return {
        "processor": _processor(), "threads": torch.get_num_threads(), "instruction_set": _instruction_set(),
        "gpu": torch.cuda.get_device_name() if there else None,
        "capability": "{}.{}".format(*torch.cuda.get_device_capability()) if there else None,
        "driver": driver.partition("\n")[0] or None, "cuda_of_torch": torch.version.cuda,
        "nvcc": nvcc.splitlines()[-1] if nvcc else None,
        "python": platform.python_version(), "packages": {name: _version(name) for name in PACKAGES},
        "commit": (_output("git", "rev-parse", "HEAD") or "unknown") + (", changed" if changed else ""),
    }  # fmt: skip


def _output(*command: str) -> str | None:
    """What a command prints; None where it is not there or fails."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=30, cwd=Path(__file__).parent
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _instruction_set() -> str | None:
    try:
        from robustperf import _native
    except ImportError:  # not built yet
        return None
    return _native.isa()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    json.dump(machine(), sys.stdout)
