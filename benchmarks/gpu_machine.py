"""Prints what `gpu.py` runs on as JSON; imports nothing that may be missing before the package is built."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version


def output(*command: str) -> str | None:
    """What a command prints; None where it is not there or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def package(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def describe() -> dict[str, str | None]:
    """Device, driver, versions, and the commit that is checked out; None for what is not there."""
    import torch

    there = torch.cuda.is_available()
    nvcc = output(shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin") or "nvcc", "--version")
    changed = output("git", "status", "--porcelain", "--untracked-files=no")
    return {
        "device": torch.cuda.get_device_name(0) if there else None,
        "capability": "{}.{}".format(*torch.cuda.get_device_capability(0)) if there else None,
        "driver": (output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or "").split("\n")[0]
        or None,
        "CUDA of torch": torch.version.cuda,
        "nvcc": nvcc.splitlines()[-1] if nvcc else None,
        **{name: package(name) for name in ("torch", "triton", "robustperf", "kornia")},
        "Python": platform.python_version(),
        "processor": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "commit": (output("git", "rev-parse", "HEAD") or "unknown") + (", changed" if changed else ""),
    }


if __name__ == "__main__":
    json.dump(describe(), sys.stdout)
