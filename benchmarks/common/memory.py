"""Peak memory of a process."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import torch


def peak_growth(run: Callable[[torch.Tensor], Any], x: torch.Tensor, first: int) -> float:
    """By how many MiB `run(x)` raises the peak memory of this process, after `run(x[:first])` has filled the
    allocator's pools."""
    run(x[:first])
    held = _peak()
    run(x)
    return _peak() - held


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
