"""This process among those that `torchrun` or `accelerate launch` started."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import PartialState


def join(cpu: bool = False) -> PartialState:
    """Which process this is, of how many, and on which device; the processes can communicate from then on.

    Without a launcher it is the only one. `cpu` uses no GPU.
    """
    from accelerate import PartialState

    # processes may finish hours apart; after a failure nothing waits, for the launcher ends them all
    return PartialState(cpu=on_cpu(cpu), timeout=timedelta(days=7))


def on_cpu(cpu: bool) -> bool:
    """accelerate's `cpu`: without a GPU it must be set, or accelerate does not see the other processes."""
    return cpu or not torch.accelerator.is_available()
