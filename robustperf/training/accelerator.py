"""The `accelerate.Accelerator` that `fit` runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from robustperf.files import user_path
from robustperf.processes import join, on_cpu

if TYPE_CHECKING:
    from accelerate import Accelerator


@contextmanager
def accelerator_for(mixed_precision: str, log_with: Any, out: Any, cpu: bool) -> Iterator[Accelerator]:
    """An Accelerator for `fit` alone; the state that accelerate keeps in classes is restored afterwards.

    Raises ImportError, naming `log_with`, for a tracker that is not installed.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState
    from accelerate.tracking import get_available_trackers

    for name in [log_with] if isinstance(log_with, str) else log_with or []:
        if name not in map(str, get_available_trackers()):  # the library would silently omit it
            raise ImportError(
                f"log_with: {name} is not installed"
                + (": pip install 'robustperf[tensorboard]'" if name == "tensorboard" else "")
            )
    join(cpu)
    # another fit or the caller may use another precision, which the library refuses, or accumulate gradients
    states = [each._shared_state for each in (AcceleratorState, GradientState)]
    before = [dict(state) for state in states]
    for state in states:
        state.clear()
    try:
        yield Accelerator(
            cpu=on_cpu(cpu),
            mixed_precision=mixed_precision,
            log_with=log_with,
            project_dir=None if out is None else user_path(out),
        )
    finally:
        for state, kept in zip(states, before, strict=True):
            state.clear()
            state.update(kept)


def check_accelerator(accelerator: Accelerator) -> None:
    """Raises ValueError for an accelerator that accumulates gradients or shards the model."""
    from accelerate.utils import DistributedType

    if (steps := accelerator.gradient_accumulation_steps) != 1:
        raise ValueError(
            f"accelerator: expected gradient_accumulation_steps=1, got {steps} (from the Accelerator, or "
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS): each batch is a step. Keep it at 1 and take a "
            f"batch_size {steps} times as large"
        )
    sharded = (DistributedType.DEEPSPEED, DistributedType.FSDP, DistributedType.MEGATRON_LM)
    if accelerator.distributed_type in sharded:
        raise ValueError(
            f"accelerator: expected one that replicates the model on each device, got "
            f"{accelerator.distributed_type}, which shards it"
        )
