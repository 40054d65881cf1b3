"""This process among those that `torchrun` or `accelerate launch` started."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import PartialState


def join(cpu: bool = False) -> PartialState:
    """Which process this is, of how many, and on which device; the processes can talk to each other from then on.

    Without a launcher it is the only one. `cpu` uses no GPU.
    """
    from accelerate import PartialState

    # shares of work may end hours apart, and a process that fails is no reason to wait: the launcher ends them all
    return PartialState(cpu=on_cpu(cpu), timeout=timedelta(days=7))


def on_cpu(cpu: bool) -> bool:
    """What accelerate must be told, or without a GPU it does not see the other processes."""
    return cpu or not torch.accelerator.is_available()
