"""What the parts of `gpu_speed.py` work with: a device with its backends, races over a floor, and what was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import torch
from gpu_figures import Figures
from gpu_timing import because, launches, limits, take_turns

from robustperf.ops import registry

BACKENDS = {"cuda": ("cuda", "triton"), "cpu": ("native", "reference")}
"""The two columns on each device."""


class Bench:
    """A device with its backends, what it can do at best, and where figures go."""

    def __init__(self, device: str, small: bool, figures: Figures):
        self.device, self.small, self.figures = device, small, figures
        self.backends, self.limits = BACKENDS[device], limits(device, small)
        figures.limits(asdict(self.limits))

    def size(self, full: tuple[int, ...], small: tuple[int, ...]) -> tuple[int, ...]:
        return small if self.small else full

    def generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(0)

    def sound(self, case: str, make: Callable[[str], torch.Tensor], tolerance: float = 1e-4) -> list[str]:
        """The backends that give, on average within `tolerance` of its largest number, what the reference does; a time
        of something else is no figure."""
        good, truth = [], make("reference").double()
        for backend in self.backends:
            try:
                wrong = ((make(backend).double() - truth).abs().mean() / truth.abs().max().clamp_min(1e-30)).item()
                if not wrong <= tolerance:
                    raise ValueError(f"differs from the reference by {wrong:.2g} of its largest number on average")
                good.append(backend)
            except Exception as error:
                self.figures.could_not_run(f"{case}, {backend}", because(error))
        return good

    def race(self, case: str, floor: tuple[float, str], ours: dict[str, Callable], peers: dict[str, Callable],
             repeats: int = 11) -> dict[str, float]:
        """Times of all, in turn; writes the row."""
        times = take_turns({**ours, **peers}, self.device, repeats=3 if self.small else repeats,
                           failed=lambda name, why: self.figures.could_not_run(f"{case}, {name}", why))
        mine = {name: times[name] for name in ours if name in times}
        self.figures.time(case, floor, mine, {name: times[name] for name in peers if name in times},
                          self.launches(case, {name: ours[name] for name in mine}))
        return times

    def launches(self, case: str, calls: dict[str, Callable | list[Callable]]) -> dict[str, int]:
        """How many things each call has the GPU do."""
        counts = {}
        for name, call in calls.items() if self.device != "cpu" else ():
            try:
                counts[name] = len(launches(call[0] if isinstance(call, list) else call))
            except Exception as error:
                self.figures.could_not_run(f"{case}, launches of {name}", because(error))
        return counts

    def faster(self, figure: str, wanted: float, times: dict[str, float], peer: str) -> None:
        has = {name: times[peer] / times[name] for name in self.backends if name in times and peer in times}
        self.figures.asked(f"{figure}, {peer} over ours", wanted, has, "×")

    def share(self, figure: str, wanted: float, times: dict[str, float], moved: int, way: str) -> None:
        bandwidth = getattr(self.limits, way)
        has = {name: 100 * moved / times[name] / bandwidth for name in self.backends if name in times}
        self.figures.asked(f"{figure}, share of {way} bandwidth", wanted, has, "%")

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
