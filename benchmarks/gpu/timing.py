"""Times on a device, without the host's share; and the floors that they are held against.

A call of a few microseconds takes the host longer to start than the device to run. So a sleep holds the device until
the host has queued a batch of calls, and two events around the batch tell what the device took. On the CPU the same
functions read a clock.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
from harness import take_turns
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], Any]

BATCH_SECONDS, MOST_CALLS = 2e-3, 50
_CYCLES_PER_SECOND, _LONGEST_SLEEP = 2e9, 0.2
# Hopper: integer operations a multiprocessor starts in a cycle
_INTEGER_LANES = 64


def device_times(
    contenders: dict[str, Call | Sequence[Call]],
    device: str,
    *,
    repeats: int = 11,
    failed: Callable[[str, Exception], None],
) -> dict[str, float]:
    """Median seconds of one call of each contender, in batches that take turns.

    A contender is a call, or several that differ in their operands, which leaves no operand in the cache. One that
    raises is left out, and `failed(name, error)` told.
    """
    timed = {}
    for name, calls in contenders.items():
        calls = list(calls) if isinstance(calls, Sequence) else [calls]
        try:
            for call in (calls[0], *calls):  # the first may compile
                call()
            one = _seconds(calls[:1], device, 0.0)
            count = min(max(int(BATCH_SECONDS / max(one, 1e-9)), len(calls), 1), max(MOST_CALLS, len(calls)))
            batch = list(islice(cycle(calls), count))
            began = time.perf_counter()
            for call in batch:
                call()
            timed[name] = partial(_seconds, batch, device, 1.5 * (time.perf_counter() - began))
            synchronise(device)
        except Exception as error:
            timed.pop(name, None)
            failed(name, error)
    return {name: statistics.median(values) for name, values in take_turns(timed, repeats, failed).items()}


def _seconds(calls: Sequence[Call], device: str, asleep: float) -> float:
    if device == "cpu":
        began = time.perf_counter()
        for call in calls:
            call()
        return (time.perf_counter() - began) / len(calls)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(int(min(asleep, _LONGEST_SLEEP) * _CYCLES_PER_SECOND))
    begin.record()
    for call in calls:
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / len(calls)


def once_each(calls: Sequence[Call], device: str) -> float:
    """Median seconds of calls that can be made only once: on a GPU those of their kernels."""
    times = []
    for call in calls:
        if device == "cpu":
            times.append(_seconds([call], device, 0.0))
        else:
            times.append(sum(seconds for _, seconds in launches(call)))
    return statistics.median(times[len(times) // 4 :])


def launches(call: Call) -> list[tuple[str, float]]:
    """(name, seconds) of everything that a call has the GPU do; RuntimeError where the profiler sees nothing."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    found = [
        (event.name, event.time_range.elapsed_us() / 1e6)
        for event in seen.events()
        if event.device_type == DeviceType.CUDA
    ]
    if not found:
        raise RuntimeError("the profiler saw nothing on the GPU")
    return found


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def context_lives(device: str) -> bool:
    """Whether the device still computes in this process: after an illegal access it never does again."""
    if device == "cpu":
        return True
    try:
        torch.cuda.synchronize()
        return torch.ones(1, device=device).add_(1).item() == 2
    except RuntimeError:
        return False


def because(error: BaseException) -> str:
    """The kind of an exception and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"


@dataclass(frozen=True)
class Limits:
    """What the device can do at best: bytes a second copied (read + written) and read, seconds of a launch, integer
    operations a second (None where the clock is unknown)."""

    copy: float
    read: float
    launch: float
    integers: float | None

    def floor(self, moved: int, direction: str = "copy", operations: float = 0.0) -> tuple[float, str]:
        """(seconds, the model in a line): the bytes at the bandwidth of `direction`, the integer operations or a
        launch, whichever takes longest."""
        bandwidth = getattr(self, direction)
        floors = [
            (moved / bandwidth, f"{moved / 1e6:.4g} MB / {direction} {bandwidth / 1e9:.4g} GB/s"),
            (self.launch, "a launch"),
        ]
        if operations and self.integers:
            floors.append(
                (operations / self.integers, f"{operations:.3g} integer operations / {self.integers / 1e12:.3g} T/s")
            )
        return max(floors)


def limits(device: str, small: bool) -> Limits:
    """Measured now: a copy, a sum and the smallest kernel there is."""
    x = torch.rand(2**20 if small else 2**28, device=device)
    copy, one = torch.empty_like(x), torch.zeros(1, device=device)

    def failed(name, error):
        raise RuntimeError(f"{name}: {because(error)}") from error

    times = device_times(
        {"copy": lambda: copy.copy_(x), "sum": x.sum, "launch": lambda: one.add_(1)}, device, failed=failed
    )
    size = x.numel() * x.element_size()
    return Limits(2 * size / times["copy"], size / times["sum"], times["launch"], _integers(device))


def _integers(device: str) -> float | None:
    if device == "cpu":
        return None
    try:
        megahertz = subprocess.run(
            ["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout.split()[0]
        return float(megahertz) * 1e6 * _INTEGER_LANES * torch.cuda.get_device_properties(0).multi_processor_count
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
