"""Timing of contenders that take turns.

Machines are noisy, so a figure is a ratio of medians from one run in which the contenders take turns. `interleave`
measures what a caller waits for, `device_times` what the device computes for.

A call of a few microseconds takes the host longer to launch than the GPU to run. So `device_times` lets a sleep hold
the GPU until the host has queued a batch of calls, and reads the events around the batch. On a CPU both read the same
clock.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch

Call = Callable[[], Any]
Failed = Callable[[str, Exception], None]

BATCH_SECONDS, MAX_CALLS = 2e-3, 50
_CYCLES_PER_SECOND, _MAX_SLEEP = 2e9, 0.2


def interleave(
    contenders: dict[str, Call], repeats: int = 21, warmup: int = 2, failed: Failed | None = None
) -> dict[str, float]:
    """Median seconds of each contender, called in turn, until the device has finished.

    Args:
        contenders: calls by name.
        repeats: turns of each contender whose times count.
        warmup: turns before those.
        failed: called with the name and the exception of a contender that raises, which is then left out; without it
            the exception is passed on.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def timed(call: Call) -> float:
        began = time.perf_counter()
        call()
        synchronize(device)
        return time.perf_counter() - began

    times = take_turns({name: partial(timed, call) for name, call in contenders.items()}, warmup + repeats, failed)
    return {name: statistics.median(values[warmup:]) for name, values in times.items()}


def device_times(
    contenders: dict[str, Call | Sequence[Call]], device: str, *, repeats: int = 11, failed: Failed
) -> dict[str, float]:
    """Median seconds that the device takes for one call of each contender, in batches that take turns.

    Args:
        contenders: by name, a call, or several that differ in their operands so that no cache holds an operand.
        device: "cuda" or "cpu".
        repeats: batches of each contender.
        failed: called with the name and the exception of a contender that raises, which is then left out.
    """
    timed = {}
    for name, calls in contenders.items():
        calls = list(calls) if isinstance(calls, Sequence) else [calls]
        try:
            for call in (calls[0], *calls):  # the first may compile
                call()
            batch = batch_of(calls, device)
            began = time.perf_counter()
            for call in batch:
                call()
            timed[name] = partial(batch_seconds, batch, device, 1.5 * (time.perf_counter() - began))
            synchronize(device)
        except Exception as error:
            timed.pop(name, None)
            failed(name, error)
    return {name: statistics.median(values) for name, values in take_turns(timed, repeats, failed).items()}


def batch_of(calls: Sequence[Call], device: str, most: int = MAX_CALLS) -> list[Call]:
    """`calls` in a cycle, each once or more, for `BATCH_SECONDS`, at most `most` calls."""
    one = batch_seconds(calls[:1], device)
    count = min(max(int(BATCH_SECONDS / max(one, 1e-9)), len(calls), 1), max(most, len(calls)))
    return list(islice(cycle(calls), count))


def take_turns(
    timed: dict[str, Callable[[], float]], turns: int, failed: Failed | None = None
) -> dict[str, list[float]]:
    """What each function returned in its turns; `failed` as in `interleave`. Shows the turn on a terminal."""
    times: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(turns):
        for name in list(times):
            _show(f"turn {turn + 1} of {turns}: {name}")
            try:
                times[name].append(timed[name]())
            except Exception as error:
                if failed is None:
                    raise
                del times[name]
                failed(name, error)
            finally:
                _show("")
    return times


def batch_seconds(calls: Sequence[Call], device: str, sleep: float = 0.0) -> float:
    """Seconds of one of `calls` on the device, on average; on a GPU they are queued while it sleeps that long."""
    if device == "cpu":
        began = time.perf_counter()
        for call in calls:
            call()
        return (time.perf_counter() - began) / len(calls)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(int(min(sleep, _MAX_SLEEP) * _CYCLES_PER_SECOND))
    begin.record()
    for call in calls:
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / len(calls)


def synchronize(device: str) -> None:
    """Waits until the device has finished what was queued."""
    if device != "cpu":
        torch.cuda.synchronize()


def _show(text: str) -> None:
    """Replaces the last line of a terminal; no thread refreshes it, which would disturb the times."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text[:78]}", end="", file=sys.stderr, flush=True)
