"""How time and memory grow with the number of points, the size of images, k, threads and processes.

    python -m benchmarks.speed.scale [--quick] [--out DIR]

A slope is that of the logarithm of the time over the logarithm of the size, by least squares: 1 is proportional, 0 is
flat, and -1 over the number of threads is perfect. The memory is that of `margins` in batches beyond the images.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

import robustperf as rp
from robustperf import nets, processes
from robustperf.attacks import BG, FGSM
from robustperf.training import MRT

from ..common.digits_cnn import digit_images
from ..common.memory import peak_growth
from ..common.options import add_timing, parse, parser
from ..common.report import Report
from ..common.timing import Call, take_turns
from . import training
from .nuisance import AFFINE, COLOURS, KEY

ATTACKS = (FGSM(), BG())
BATCH = 256
TURNS = 5


@dataclass(frozen=True)
class Curve:
    """Values by size.

    Attributes:
        curve: what was measured, in words.
        over: what the sizes count.
        unit: of the values, "ms" or "MiB".
        sizes, values: as many of each.
        slope: of log(value) over log(size); None of the memory, where a value may be zero.
    """

    curve: str
    over: str
    unit: str
    sizes: list[int]
    values: list[float]
    slope: float | None

    def __str__(self) -> str:
        each = ", ".join(f"{size:,}: {value:.4g}" for size, value in zip(self.sizes, self.values, strict=True))
        found = "" if self.slope is None else f"; slope {self.slope:.2f}"
        if self.over in ("threads", "processes"):
            found += f", {self.values[0] / self.values[-1]:.2f} times as fast with {self.sizes[-1]}"
        return f"{self.curve}, {self.unit} by {self.over}: {each}{found}"


def slope(sizes: list[int], values: list[float]) -> float:
    """Of log(value) over log(size), by least squares.

    >>> round(slope([1, 2, 4], [3.0, 12.0, 48.0]), 6)
    2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def curves(quick: bool) -> dict[str, Callable[[], Curve]]:
    """What measures each curve, by name."""
    cores = os.cpu_count() or 1
    memory = (4, 16) if quick else (16, 32, 64, 128)
    return {
        "points": partial(_points, (32, 64, 128) if quick else (128, 256, 512, 1024)),
        "image size": partial(_image_size, (32, 64, 128) if quick else (32, 64, 128, 256)),
        "k": partial(_draws, (1, 3, 9) if quick else (1, 2, 5, 10, 20, 50)),
        "threads": partial(_threads, [2**i for i in range(7) if 2**i <= cores]),
        "processes": partial(_processes, (1, 2), (4 if quick else 32) * BATCH),
        "memory": partial(_memory, tuple(count * BATCH for count in memory)),
    }


def _timed(name: str, over: str, calls: dict[int, Call]) -> Curve:
    """The sizes take turns."""

    def seconds(call: Call) -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    times = take_turns({str(size): partial(seconds, call) for size, call in calls.items()}, 1 + TURNS)
    values = [1e3 * statistics.median(each[1:]) for each in times.values()]
    sizes = list(calls)
    return Curve(name, over, "ms", sizes, values, slope(sizes, values) if len(sizes) > 1 else None)


def _model() -> torch.nn.Module:
    torch.manual_seed(0)
    return nets.build("small-cnn").eval()


def _points(sizes: tuple[int, ...]) -> Curve:
    model, x = _model(), digit_images(max(sizes))
    return _timed("margins, FGSM + BG", "points", {n: partial(_margins, model, x[:n]) for n in sizes})


def _margins(model: torch.nn.Module, x: torch.Tensor) -> object:
    return rp.margins(model, x, attacks=ATTACKS, batch_size=BATCH)


def _image_size(sides: tuple[int, ...]) -> Curve:
    kernel, index = rp.nuisance.Compose([AFFINE, *COLOURS]), torch.arange(8)
    images = [torch.rand(8, 3, side, side) for side in sides]
    calls = {x[0, 0].numel(): partial(kernel.draw, x, key=KEY, index=index) for x in images}
    return _timed("affine + four colours, 8 images", "pixels", calls)


def _draws(ks: tuple[int, ...]) -> Curve:
    steps = {k: training.step(partial(training.ours, MRT(training.KERNEL, k=k))) for k in ks}
    return _timed(f"MRT step, batch {training.BATCH}", "k", steps)


def _threads(counts: list[int]) -> Curve:
    kernel, x, index = rp.nuisance.Compose([AFFINE, *COLOURS]), torch.rand(64, 3, 64, 64), torch.arange(64)
    before = torch.get_num_threads()

    def run(count: int) -> None:
        torch.set_num_threads(count)
        kernel.draw(x, key=KEY, index=index)

    try:
        return _timed("affine + four colours, 64x3x64x64", "threads", {count: partial(run, count) for count in counts})
    finally:
        torch.set_num_threads(before)


def _processes(counts: tuple[int, ...], points: int) -> Curve:
    """Margins of equally many points by one process or several, each of which takes every n-th batch, as `robustperf
    margins` does; without their start."""
    values = [1e3 * float(_worker("--worker", str(points), processes=count)) for count in counts]
    return Curve(f"margins of {points:,} points", "processes", "ms", list(counts), values, slope(list(counts), values))


def _memory(sizes: tuple[int, ...]) -> Curve:
    values = [float(_worker("--peak", str(points))) for points in sizes]
    return Curve(f"peak memory of margins beyond that of {BATCH} points", "points", "MiB", list(sizes), values, None)


def _worker(*arguments: str, processes: int = 0) -> str:
    """The last line that this module prints in processes of its own, of one thread each."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"] if processes else []
    command = [sys.executable, "-m", *launcher, "robustperf.benchmarks.speed.scale", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if done.returncode:
        raise RuntimeError(f"a process failed: {done.stderr.strip()[-300:]}")
    return done.stdout.split()[-1]


def _work(points: int) -> None:
    """Prints the seconds of all processes for so many points."""
    process, model = processes.join(cpu=True), _model()
    parts = digit_images(points).split(BATCH)[process.process_index :: process.num_processes]
    _margins(model, parts[0])
    process.wait_for_everyone()
    began = time.perf_counter()
    for part in parts:
        _margins(model, part)
    process.wait_for_everyone()
    if process.is_main_process:
        print(time.perf_counter() - began)
    if process.num_processes > 1:
        torch.distributed.destroy_process_group()


def _peak(points: int) -> None:
    model, x = _model(), digit_images(points)
    print(max(peak_growth(partial(_margins, model), x, first=BATCH), 0.0))


def main() -> None:
    options = parser(__doc__)
    add_timing(options, repeats=TURNS)
    options.add_argument("--quick", action="store_true", help="smaller sizes")
    options.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    arguments = parse(options)
    if arguments.worker:
        return _work(arguments.worker)
    if arguments.peak:
        return _peak(arguments.peak)
    report = Report("scale", "How time and memory grow", arguments.output)
    for measure in curves(arguments.quick).values():
        curve = measure()
        for size, value in zip(curve.sizes, curve.values, strict=True):
            report.add(case=f"{curve.curve}: {size:,} {curve.over}", **{curve.unit: value}, slope=curve.slope)
    report.show()


if __name__ == "__main__":
    main()
