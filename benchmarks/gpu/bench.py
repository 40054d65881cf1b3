"""What the parts of `speed.py` work with: a device with its backends, races over a floor, and what was asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import torch

from gpu.figures import Figures
from gpu.processes import BACKENDS, CONTEXT_LOST
from gpu.timing import because, context_lives, device_times, launches, limits
from robustperf.ops import registry


class Bench:
    """A device with its backends, what it can do at best, and where figures go.

    Args:
        small: sizes that show that it runs, and no more.
        without: a backend that is left out, since the device stopped working at one of its calls.
        compiles: whether torch.compile's peers are timed too.
    """

    def __init__(self, device: str, small: bool, figures: Figures, without: str | None = None, compiles: bool = True):
        self.device, self.small, self.figures, self.compiles = device, small, figures, compiles
        self.backends = tuple(name for name in BACKENDS[device] if name != without)
        self.limits = limits(device, small)
        figures.limits(asdict(self.limits))

    def size(self, full: tuple[int, ...], small: tuple[int, ...]) -> tuple[int, ...]:
        return small if self.small else full

    def generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(0)

    def failed(self, what: str, error: Exception) -> None:
        """Reports it. Where the device no longer works in this process, the process ends: a new one runs the others."""
        self.figures.could_not_run(what, because(error))
        if not context_lives(self.device):
            self.figures.lost(next((name for name in self.backends if name in what), None))
            sys.exit(CONTEXT_LOST)

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """What raises in this block is reported, and the part continues behind it."""
        try:
            yield
        except Exception as error:
            self.failed(what, error)

    def sound(
        self, case: str, ours: Callable[[str], torch.Tensor], truth: Callable[[], torch.Tensor], tolerance: float = 1e-4
    ) -> list[str]:
        """The backends that give, on average within `tolerance` of its largest number, what the reference gives on the
        CPU, which is independent of the device; a time of something else is no figure."""
        good = []
        with self.attempt(f"{case}, the reference on the CPU"):
            right = truth().double()
            for backend in self.backends:
                with self.attempt(f"{case}, {backend}"):
                    mine = ours(backend).double().cpu()
                    wrong = ((mine - right).abs().mean() / right.abs().max().clamp_min(1e-30)).item()
                    if not wrong <= tolerance:
                        raise ValueError(f"differs from the reference by {wrong:.2g} of its largest number on average")
                    good.append(backend)
        return good

    def race(
        self,
        case: str,
        floor: tuple[float, str],
        ours: dict[str, Callable],
        peers: dict[str, Callable],
        repeats: int = 11,
    ) -> dict[str, float]:
        """Times of all, in turn; writes the row."""
        times = device_times(
            {**ours, **peers},
            self.device,
            repeats=3 if self.small else repeats,
            failed=lambda name, error: self.failed(f"{case}, {name}", error),
        )
        mine = {name: times[name] for name in ours if name in times}
        self.figures.time(
            case,
            floor,
            mine,
            {name: times[name] for name in peers if name in times},
            self.launches(case, {name: ours[name] for name in mine}),
        )
        return times

    def launches(self, case: str, calls: dict[str, Callable | list[Callable]]) -> dict[str, int]:
        """How many things each call has the GPU do."""
        counts = {}
        for name, call in calls.items() if self.device != "cpu" else ():
            with self.attempt(f"{case}, launches of {name}"):
                counts[name] = len(launches(call[0] if isinstance(call, list) else call))
        return counts

    def faster(self, figure: str, wanted: float, times: dict[str, float], peer: str) -> None:
        has = {name: times[peer] / times[name] for name in self.backends if name in times and peer in times}
        self.figures.asked(f"{figure}, {peer} over ours", wanted, has, "×")

    def fraction(
        self, figure: str, wanted: float, times: dict[str, float], moved: int, direction: str, predicted: str
    ) -> None:
        bandwidth = getattr(self.limits, direction)
        has = {name: 100 * moved / times[name] / bandwidth for name in self.backends if name in times}
        self.figures.asked(f"{figure}, percentage of {direction} bandwidth", wanted, has, "%", predicted=predicted)

    @contextmanager
    def preferring(self, backend: str) -> Iterator[None]:
        """backend=None means this one: what is built on the operations has no argument for it."""
        caches = (registry.default, registry._default_on, registry.native)
        before = registry._PREFERRED[self.device]
        registry._PREFERRED[self.device] = (backend, "reference")
        for cache in caches:
            cache.cache_clear()
        try:
            yield
        finally:
            registry._PREFERRED[self.device] = before
            for cache in caches:
                cache.cache_clear()


def image_bytes(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
