"""Steps of model-based training compared with the published loop: time and peak memory by k; the parts of a step of
MRT, and ways to select its draw; and the overhead of `fit`.

    python -m benchmarks.speed.training [--out DIR]

The network is R A.2's CNN with batch normalisation, the batch 64 images of 3x32x32, the optimizer Adadelta. The
published loops transform images by eager PyTorch, as published, and once more by our native kernel, which leaves only
the difference between the loops.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from robustperf import nets, random
from robustperf.data import Dataset
from robustperf.nuisance import Brightness, Compose, Contrast, Rotation
from robustperf.training import ERM, MAT, MDA, MRT, batches, fit

from ..common.cases import COMPILED, EAGER, OURS, Case
from ..common.options import ROOT, add_timing, parse, parser
from ..common.report import Report
from ..common.timing import Call, interleave
from . import mrt

KERNEL = Compose([Rotation(15), Brightness(0.4), Contrast(0.4)])
BATCH, CLASSES = 64, 10
MEASURED = ("MRT", "MAT", "MDA", "parts", "selection", "fit")


def published_mrt(model, x, y, k: int, backend: str = "reference") -> torch.Tensor:
    """MRT by its authors' loop: train mode, one draw kept for the whole batch, each loss read on the host."""
    worst, most = x, 0.0
    with torch.no_grad():
        for _ in range(k):
            drawn = KERNEL(x, _uniform(x), backend=backend)
            loss = cross_entropy(model(drawn), y)
            if loss.item() > most:
                most, worst = loss.item(), drawn
    return cross_entropy(model(torch.cat([x, worst])), torch.cat([y, y]))


def published_mat(model, x, y, k: int, backend: str = "reference") -> torch.Tensor:
    """MAT by its authors' loop: from delta = 0 with gradient steps of 0.1, here in units of Delta's radius."""
    delta, radius = x.new_zeros(len(x), KERNEL.dim), KERNEL.radius_for(None).to(x)
    for _ in range(k):
        delta.requires_grad_()
        loss = cross_entropy(model(KERNEL(x, delta, backend=backend)), y)
        (gradient,) = torch.autograd.grad(loss, delta)
        delta = KERNEL.project(delta.detach() + 0.1 * radius**2 * gradient)
    return cross_entropy(model(torch.cat([x, KERNEL(x, delta, backend=backend)])), torch.cat([y, y]))


def published_mda(model, x, y, k: int, backend: str = "reference") -> torch.Tensor:
    """MDA by its authors' loop: k draws beside the clean batch."""
    drawn = [KERNEL(x, _uniform(x), backend=backend) for _ in range(k)]
    return cross_entropy(model(torch.cat([x, *drawn])), y.repeat(k + 1))


def ours(objective, model, x, y) -> torch.Tensor:
    return objective(model, x, y, key=random.key(0), index=torch.arange(len(x), device=x.device))


def step(loss_of: Callable[..., torch.Tensor], device: str = "cpu", compiled: bool = False) -> Callable[[], None]:
    """A function that makes one training step of a new network, `compiled` or not."""
    torch.manual_seed(0)
    model = nets.RobeyCNN(classes=CLASSES, batch_norm=True).train().to(device)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    network = torch.compile(model) if compiled else model
    x, y = torch.rand(BATCH, 3, 32, 32).to(device), torch.randint(CLASSES, (BATCH,)).to(device)

    def run() -> None:
        optimizer.zero_grad()
        loss_of(network, x, y).backward()
        optimizer.step()

    return run


def contenders(name: str, k: int, kernel_on: str = "native") -> dict[str, Callable[..., torch.Tensor]]:
    """The published loop in eager PyTorch and with our kernel on one backend, and our objective, for one method."""
    loop, objective = {"MRT": (published_mrt, MRT), "MAT": (published_mat, MAT), "MDA": (published_mda, MDA)}[name]
    losses = {
        "published": partial(loop, k=k),
        "published, our kernel": partial(loop, k=k, backend=kernel_on),
        "float32": partial(ours, objective(KERNEL, k=k)),
    }
    if name == "MRT":
        losses["bfloat16 selection"] = partial(ours, MRT(KERNEL, k=k, selection_dtype=torch.bfloat16))
    return losses


def _uniform(x: torch.Tensor) -> torch.Tensor:
    return (2 * torch.rand(len(x), KERNEL.dim, device=x.device) - 1) * KERNEL.radius_for(None).to(x)


def peak_memory(name: str, which: str, k: int) -> float:
    """Peak MiB of three steps beyond the memory before the first, in its own process."""
    command = [sys.executable, "-m", "benchmarks.speed.training", "--memory-of", name, which, str(k)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout)


def _memory_of(name: str, which: str, k: int) -> None:
    run, stop, sizes = step(contenders(name, k)[which]), threading.Event(), [_resident()]

    def watch() -> None:
        while not stop.wait(5e-4):
            sizes.append(_resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(3):
        run()
    stop.set()
    watcher.join()
    print((max(sizes) - sizes[0]) / 2**20)


def _resident() -> int:
    """Bytes of this process in memory now; the peak that the system records is that of importing torch."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def fit_contenders() -> dict[str, Call]:
    """An epoch by `fit`, and by a bare loop of the same steps."""
    data = Dataset("noise", torch.rand(20 * BATCH, 3, 32, 32), torch.randint(CLASSES, (20 * BATCH,)), CLASSES)

    def model_of() -> torch.nn.Module:
        torch.manual_seed(0)
        return nets.RobeyCNN(classes=CLASSES).train()

    def bare() -> None:
        model, objective, key = model_of(), ERM(), random.key(0)
        optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
        for number, rows in enumerate(batches(len(data), BATCH, key=key, epoch=0)):
            loss = objective(model, data.x[rows], data.y[rows], key=random.fold_in(key, number), index=rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def fitted() -> None:
        fit(model_of(), ERM(), data, validation=None, epochs=1, batch_size=BATCH, progress=False)

    return {"fit": fitted, "bare": bare}


def cost_of_fit(repeats: int) -> dict[str, float | str]:
    """A row: seconds of an epoch by `fit` and by a bare loop of the same steps."""
    times = interleave(fit_contenders(), repeats)
    return {
        "case": "ERM, 20 steps, the CNN without batch norm",
        "fit s": times["fit"],
        "bare loop s": times["bare"],
        "overhead of fit %": 100 * (times["fit"] / times["bare"] - 1),
    }


def cases(quick: bool) -> list[Case]:
    """`eager` is the published loop."""

    def make(name: str, k: int) -> dict[str, Call]:
        losses = contenders(name, k)
        calls = {OURS: step(losses.pop("float32")), EAGER: step(losses["published"])}
        if quick:
            return calls
        calls[COMPILED] = step(losses.pop("published"), compiled=True)
        return calls | {loop: step(loss_of) for loop, loss_of in losses.items()}

    def of_fit() -> dict[str, Call]:
        calls = fit_contenders()
        return {OURS: calls["fit"], EAGER: calls["bare"]}

    chosen = [("MRT", 3)] if quick else [(name, k) for name in ("MRT", "MAT", "MDA") for k in (1, 10)]
    steps = [Case(f"training, {name}-{k} step, batch {BATCH}", partial(make, name, k)) for name, k in chosen]
    return [*steps, *([] if quick else [Case(f"training, fit of 20 steps, batch {BATCH}", of_fit)])]


def main() -> None:
    options = parser(__doc__)
    add_timing(options)
    options.add_argument("--k", type=int, nargs="+", default=[1, 5, 10, 20, 50])
    options.add_argument("--what", nargs="+", choices=MEASURED, default=MEASURED)
    options.add_argument("--ways", nargs="+", choices=mrt.WAYS, default=mrt.WAYS[:4], help="of the selection")
    options.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    arguments = parse(options, selections=("k", "what", "ways"))
    if arguments.memory_of:
        name, which, k = arguments.memory_of
        return _memory_of(name, which, int(k))
    report = Report("training", f"A step of model-based training, R A.2's CNN, batch {BATCH}", arguments.output)
    for name in [name for name in arguments.what if name in ("MRT", "MAT", "MDA")]:
        for k in arguments.k:
            losses = contenders(name, k)
            times = interleave({loop: step(loss_of) for loop, loss_of in losses.items()}, arguments.repeats)
            for loop in losses:
                row = {
                    "case": f"{name}-{k} {loop}",
                    "ms": times[loop] * 1e3,
                    "x faster than published": times["published"] / times[loop],
                }
                report.add(**row, **{"peak MiB": peak_memory(name, loop, k)})
    if report.rows:
        report.show(bars=("case", "x faster than published"))
    if "parts" in arguments.what:
        published = step(contenders("MRT", mrt.K)["published"])
        mrt.parts(KERNEL, published, arguments.repeats, arguments.output)
    if "selection" in arguments.what:
        ways = list(dict.fromkeys(("float32", *arguments.ways)))
        mrt.selections(KERNEL, ways, arguments.repeats, arguments.output)
    if "fit" in arguments.what:
        report = Report("fit", "Overhead of fit", arguments.output)
        report.add(**cost_of_fit(arguments.repeats))
        report.show()


if __name__ == "__main__":
    main()
