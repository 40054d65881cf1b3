"""What the parts of `speed.py` share: a device with its backends, timings over a floor, and targets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import torch

from benchmarks.common.timing import device_times
from benchmarks.gpu.device import context_works, launches, measure_limits, reason
from benchmarks.gpu.figures import Figures
from benchmarks.gpu.processes import BACKENDS, CONTEXT_LOST


class Bench:
    """A device, its backends and limits, and where figures go.

    Args:
        device: "cuda" or "cpu".
        small: use sizes that only show that the code runs.
        figures: where the results are written.
        without: a backend to leave out, since the device stopped working at one of its calls.
        compiles: whether to time the peers compiled by torch.compile too.
    """

    def __init__(self, device: str, small: bool, figures: Figures, without: str | None = None, compiles: bool = True):
        self.device, self.small, self.figures, self.compiles = device, small, figures, compiles
        self.backends = tuple(name for name in BACKENDS[device] if name != without)
        self.limits = measure_limits(device, small)
        figures.limits(asdict(self.limits))

    def size(self, full: tuple[int, ...], small: tuple[int, ...]) -> tuple[int, ...]:
        return small if self.small else full

    def generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(0)

    def failed(self, what: str, error: Exception) -> None:
        """Reports an error. Ends the process where the device no longer works in it: a new one runs the other parts."""
        self.figures.could_not_run(what, reason(error))
        if not context_works(self.device):
            self.figures.lost(next((name for name in self.backends if name in what), None))
            sys.exit(CONTEXT_LOST)

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Reports what raises in this block; the part continues after it."""
        try:
            yield
        except Exception as error:
            self.failed(what, error)

    def agreeing(
        self,
        case: str,
        ours: Callable[[str], torch.Tensor],
        expected: Callable[[], torch.Tensor],
        tolerance: float = 1e-4,
    ) -> list[str]:
        """The backends whose result agrees with `expected`, the reference's on the CPU; only these are timed.

        The mean absolute difference may be `tolerance` times the largest absolute value.
        """
        agreeing = []
        with self.attempt(f"{case}, the reference on the CPU"):
            right = expected().double()
            for backend in self.backends:
                with self.attempt(f"{case}, {backend}"):
                    result = ours(backend).double().cpu()
                    error = ((result - right).abs().mean() / right.abs().max().clamp_min(1e-30)).item()
                    if not error <= tolerance:
                        raise ValueError(f"differs from the reference by {error:.2g} of its largest value on average")
                    agreeing.append(backend)
        return agreeing

    def race(
        self,
        case: str,
        floor: tuple[float, str],
        ours: dict[str, Callable],
        peers: dict[str, Callable],
        repeats: int = 11,
    ) -> dict[str, float]:
        """Times all contenders in turn, writes the row and returns the seconds by name."""
        times = device_times(
            {**ours, **peers},
            self.device,
            repeats=3 if self.small else repeats,
            failed=lambda name, error: self.failed(f"{case}, {name}", error),
        )
        measured = {name: times[name] for name in ours if name in times}
        self.figures.time(
            case,
            floor,
            measured,
            {name: times[name] for name in peers if name in times},
            self.launches(case, {name: ours[name] for name in measured}),
        )
        return times

    def launches(self, case: str, calls: dict[str, Callable | list[Callable]]) -> dict[str, int]:
        """How many kernels and copies each call launches."""
        counts = {}
        for name, call in calls.items() if self.device != "cpu" else ():
            with self.attempt(f"{case}, launches of {name}"):
                counts[name] = len(launches(call[0] if isinstance(call, list) else call))
        return counts

    def faster(self, figure: str, wanted: float, times: dict[str, float], peer: str) -> None:
        """Sets the target that `peer` takes `wanted` times our time."""
        values = {name: times[peer] / times[name] for name in self.backends if name in times and peer in times}
        self.figures.target(f"{figure}, {peer} over ours", wanted, values, "×")

    def fraction(
        self, figure: str, wanted: float, times: dict[str, float], moved: int, direction: str, predicted: str
    ) -> None:
        """Sets the target that `moved` bytes take `wanted` % of the bandwidth of `direction`."""
        bandwidth = getattr(self.limits, direction)
        values = {name: 100 * moved / times[name] / bandwidth for name in self.backends if name in times}
        self.figures.target(f"{figure}, percentage of {direction} bandwidth", wanted, values, "%", predicted=predicted)


def image_bytes(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
