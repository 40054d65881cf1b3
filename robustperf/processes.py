"""The group of processes that `torchrun` or `accelerate launch` started."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import PartialState


def join(cpu: bool = False) -> PartialState:
    """Joins the process group; without a launcher this process is the only one.

    Args:
        cpu: use no GPU.

    Returns accelerate's state: `process_index`, `num_processes`, `is_main_process` and `device`.
    """
    # default arguments there keep a group that exists when it is imported, and gloo's threads with it, which may abort
    # the exit; DistributedDataParallel imports it
    import torch.distributed.nn.functional  # noqa: F401
    from accelerate import PartialState

    # processes may finish hours apart; after a failure the launcher ends them all
    return PartialState(cpu=on_cpu(cpu), timeout=timedelta(days=7))


def on_cpu(cpu: bool) -> bool:
    """The value of accelerate's `cpu`: without a GPU it must be true, or accelerate ignores the other processes."""
    return cpu or not torch.accelerator.is_available()
