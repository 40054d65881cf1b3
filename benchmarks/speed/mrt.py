"""The parts of a step of MRT, and the ways to compute the losses that it selects by. `benchmarks.speed.training` prints
both.

The losses of k draws need forward passes only: in bfloat16, by `torch.compile`, or by a copy of the network whose batch
normalisation is folded into the convolutions and whose weights are in oneDNN's layout. The weights change with each
step, so that such a copy is made in each step, and its making is timed too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils import mkldnn

from robustperf import nets, ops, random
from robustperf.classifier import evaluating, laid_out, logits_of
from robustperf.kernel import Kernel
from robustperf.training import MRT
from robustperf.training.objective import loss_of_drawn

from ..common.options import Output
from ..common.report import Report
from ..common.timing import interleave

KEY, CLASSES, BATCH, K = random.key(0), 10, 64, 10
BATCHES = 10  # whose selected draws are compared
WAYS = ("float32", "bfloat16", "folded", "folded, oneDNN", "compiled")
NETWORKS = {
    "R A.2's CNN, batch norm": lambda: nets.RobeyCNN(classes=CLASSES, batch_norm=True),
    "R A.2's CNN": lambda: nets.RobeyCNN(classes=CLASSES),
    "small-cnn": lambda: nets.build("small-cnn", in_channels=3, size=32),
}


def parts(kernel: Kernel, published: Callable[[], None], repeats: int, output: Output) -> None:
    """Milliseconds of the parts of one step of MRT-10, and of `published`, a step of the published loop."""
    model, optimizer, x, y, index = _training("R A.2's CNN, batch norm")
    objective = MRT(kernel, k=K)
    numbers = torch.arange(K)
    with torch.no_grad():
        drawn = kernel.draw(x, key=KEY, index=index, draws=K)
        logits = _float32(model)(drawn)
    selected = drawn[0]

    def step() -> None:
        optimizer.zero_grad()
        objective(model, x, y, key=KEY, index=index).backward()
        optimizer.step()

    def train() -> None:
        optimizer.zero_grad()
        loss_of_drawn(model, selected[None], x, y, 1.0).backward()

    def select() -> None:
        running = None
        for draw in range(K):
            running = ops.best_of_k(logits[draw : draw + 1], y, selection="batch", running=running, first=draw)

    times = interleave(
        {
            "published loop": published,
            "whole step": step,
            "the draws": lambda: [kernel.draw(x, key=KEY, index=index, draws=number) for number in numbers.split(1)],
            "forward passes of the draws": lambda: _float32(model)(drawn),
            "selection": select,
            "the selected draw again": lambda: kernel.draw(x, key=KEY, index=index, draws=numbers[:1]),
            "forward and backward pass of the selected and the clean images": train,
            "optimizer": optimizer.step,
        },
        repeats,
    )
    report = Report("mrt_parts", f"Parts of a step of MRT-{K}, R A.2's CNN with batch norm, batch {BATCH}", output)
    for name, seconds in times.items():
        report.add(part=name, ms=1e3 * seconds, **{"% of the step": 100 * seconds / times["whole step"]})
    passes = sum(seconds for name, seconds in times.items() if "pass" in name)
    report.add(
        part="passes of the network alone", ms=1e3 * passes, **{"% of the step": 100 * passes / times["whole step"]}
    )
    report.show()


def selections(kernel: Kernel, ways: Sequence[str], repeats: int, output: Output) -> None:
    """The forward passes of MRT-10's draws in each way, and how often it selects the draw that float32 selects."""
    report = Report("mrt_selection", f"Ways to compute the losses of {K} draws, batch {BATCH}", output)
    for name in NETWORKS:
        model, optimizer, x, y, index = _training(name)
        objective = MRT(kernel, k=K)
        for number in range(5):
            optimizer.zero_grad()
            objective(model, x, y, key=random.fold_in(KEY, number), index=index).backward()
            optimizer.step()
        runs = {way: _WAYS[way](model) for way in ways}
        with torch.no_grad():
            drawn = kernel.draw(x, key=KEY, index=index, draws=K)
            times = interleave({way: partial(run, drawn) for way, run in runs.items()}, repeats)
            same = _agreement(kernel, runs, x, y, index)
        for way, seconds in times.items():
            of_batches, of_samples = same[way]
            report.add(**{
                "case": f"{name}, {way}", "ms": 1e3 * seconds, "x faster": times["float32"] / seconds,
                "same draw, % of batches": of_batches, "same draw, % of samples": of_samples,
            })  # fmt: skip
    report.show(bars=("case", "x faster"))


def _training(name: str) -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = NETWORKS[name]().train()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    return model, optimizer, torch.rand(BATCH, 3, 32, 32), torch.randint(CLASSES, (BATCH,)), torch.arange(BATCH)


def _passes(evaluated: Callable[[torch.Tensor], torch.Tensor], drawn: torch.Tensor) -> torch.Tensor:
    return torch.stack([evaluated(images) for images in drawn])


def _float32(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    def run(drawn: torch.Tensor) -> torch.Tensor:
        with evaluating(model), torch.no_grad():
            return _passes(lambda images: logits_of(model, laid_out(model, images)), drawn)

    return run


def _bfloat16(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    def run(drawn: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return _float32(model)(drawn).float()

    return run


def _folded(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda drawn: _float32(_fold(model))(drawn)


def _onednn(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    def run(drawn: torch.Tensor) -> torch.Tensor:
        folded = _fold(model)
        convolutions = mkldnn.to_mkldnn(folded.features)
        with torch.no_grad():
            return _passes(lambda images: folded.head(convolutions(images.to_mkldnn()).to_dense()), drawn)

    return run


def _compiled(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    return _float32(torch.compile(model))


_WAYS = dict(zip(WAYS, (_float32, _bfloat16, _folded, _onednn, _compiled), strict=True))


def _fold(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose batch normalisations are in the convolutions before them."""
    model = copy.deepcopy(model).eval()
    for sequence in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        for place in range(1, len(sequence)):
            before, norm = sequence[place - 1], sequence[place]
            if isinstance(before, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                sequence[place - 1], sequence[place] = fuse_conv_bn_eval(before, norm), nn.Identity()
    return model


def _agreement(kernel, runs, x, y, index) -> dict[str, tuple[float, float]]:
    """For each way (% of the batches, % of the samples) that select float32's draw."""
    counts = {way: [0, 0] for way in runs}
    for number in range(BATCHES):
        drawn = kernel.draw(x, key=random.fold_in(KEY, number), index=index, draws=K)
        chosen = {}
        for way, run in runs.items():
            logits = run(drawn)
            chosen[way] = [ops.best_of_k(logits, y, selection=kind)[1] for kind in ("batch", "sample")]
        for way, (of_batch, of_samples) in chosen.items():
            counts[way][0] += int(torch.equal(of_batch, chosen["float32"][0]))
            counts[way][1] += int((of_samples == chosen["float32"][1]).sum())
    return {way: (100 * a / BATCHES, 100 * b / (BATCHES * BATCH)) for way, (a, b) in counts.items()}
