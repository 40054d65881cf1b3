"""The machine and the versions that figures were measured with. `python -m benchmarks.common.machine` prints them as
JSON.

At the top it imports nothing that may be missing before the package is built.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from robustperf.machine import processor

PEERS = {
    "foolbox": "foolbox",
    "adv-lib": "adv_lib.attacks",
    "kornia": "kornia.augmentation",
    "albumentations": "albumentations",
    "scikit-learn": "sklearn.svm",
    "scikit-learn-intelex": "sklearnex.svm",
}
"""The libraries that are measured beside this one where they are installed -> the module that is imported of each."""

PACKAGES = ("robustperf", "torch", "triton", "numpy", *PEERS)


def missing_peers() -> list[str]:
    """The peers that cannot be imported; of those that are installed, with the reason."""
    missing = []
    for name, module in PEERS.items():
        try:
            import_module(module)
        except Exception as error:  # of a package that does not fit the others
            reason = f" ({type(error).__name__}: {error})".splitlines()[0]
            missing.append(name + reason * (_version(name) is not None))
    return missing


def describe_machine(commit: bool = True) -> dict[str, Any]:
    """Processor, GPU, driver and versions; None for what is missing. With `commit` also the checked-out one, for which
    git is asked."""
    import torch

    has_gpu = torch.cuda.is_available()
    nvcc = _output(shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin") or "nvcc", "--version")
    driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or ""
    described = {
        "processor": processor(), "threads": torch.get_num_threads(), "instruction_set": _instruction_set(),
        "gpu": torch.cuda.get_device_name() if has_gpu else None,
        "capability": "{}.{}".format(*torch.cuda.get_device_capability()) if has_gpu else None,
        "driver": driver.partition("\n")[0] or None, "cuda_of_torch": torch.version.cuda,
        "nvcc": nvcc.splitlines()[-1] if nvcc else None,
        "python": platform.python_version(), "packages": {name: _version(name) for name in PACKAGES},
    }  # fmt: skip
    if commit:
        changed = _output("git", "status", "--porcelain", "--untracked-files=no")
        described["commit"] = (_output("git", "rev-parse", "HEAD") or "unknown") + (", changed" if changed else "")
    return described


def slug(name: str) -> str:
    """A folder's name for a device: "AMD EPYC, family 25, model 1" -> "amd-epyc-family-25-model-1"."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", name.lower())).strip("-") or "unknown"


def _output(*command: str) -> str | None:
    """What a command prints; None where it is missing or fails."""
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


if __name__ == "__main__":
    print(json.dumps(describe_machine()))
