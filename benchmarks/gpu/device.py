"""What a GPU does and can do: kernels that a call launches, whether the context still works, bandwidths and floors.

On a CPU the same functions serve a trial of the benchmark.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.common.timing import Call, batch_seconds, device_times

# Hopper: integer operations that a multiprocessor starts in a cycle
_INTEGER_LANES = 64


def once_each(calls: Sequence[Call], device: str) -> float:
    """Median seconds of calls that can be made only once; on a GPU the time of their kernels."""
    if device == "cpu":
        times = [batch_seconds([call], device) for call in calls]
    else:
        times = [sum(seconds for _, seconds in launches(call)) for call in calls]
    return statistics.median(times[len(times) // 4 :])


def launches(call: Call) -> list[tuple[str, float]]:
    """(name, seconds) of each kernel and copy that a call launches; RuntimeError where the profiler records none."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        call()
        torch.cuda.synchronize()
    found = [
        (event.name, event.time_range.elapsed_us() / 1e6)
        for event in recorded.events()
        if event.device_type == DeviceType.CUDA
    ]
    if not found:
        raise RuntimeError("the profiler recorded nothing on the GPU")
    return found


def context_works(device: str) -> bool:
    """Whether the device still computes in this process: after an illegal access it never does again."""
    if device == "cpu":
        return True
    try:
        torch.cuda.synchronize()
        return torch.ones(1, device=device).add_(1).item() == 2
    except RuntimeError:
        return False


def reason(error: BaseException) -> str:
    """The type of an exception and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"


@dataclass(frozen=True)
class Limits:
    """What the device reached in this run.

    Attributes:
        copy: bytes per second read and written by a copy.
        read: bytes per second read by a sum.
        launch: seconds of the smallest kernel.
        integers: integer operations per second; None where the clock rate is unknown.
    """

    copy: float
    read: float
    launch: float
    integers: float | None

    def floor(self, moved: int, direction: str = "copy", operations: float = 0.0) -> tuple[float, str]:
        """(seconds, explanation) of the longest of: `moved` bytes at the bandwidth of `direction`, the integer
        operations, a launch."""
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


def measure_limits(device: str, small: bool) -> Limits:
    """Measures a copy, a sum and the smallest kernel."""
    x = torch.rand(2**20 if small else 2**28, device=device)
    copy, one = torch.empty_like(x), torch.zeros(1, device=device)

    def failed(name, error):
        raise RuntimeError(f"{name}: {reason(error)}") from error

    times = device_times(
        {"copy": lambda: copy.copy_(x), "sum": x.sum, "launch": lambda: one.add_(1)}, device, failed=failed
    )
    size = x.numel() * x.element_size()
    return Limits(2 * size / times["copy"], size / times["sum"], times["launch"], _integer_rate(device))


def _integer_rate(device: str) -> float | None:
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
