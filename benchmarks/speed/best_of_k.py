"""The worst of k draws compared with cross_entropy and max in PyTorch, their compiled form, and a sum of the logits.

python -m benchmarks.speed.best_of_k [--all-instruction-sets] [--out DIR]
"""

from __future__ import annotations

from functools import partial

import torch
from torch.nn.functional import cross_entropy

from robustperf import _native, ops

from ..common.cases import COMPILED, EAGER, OURS, Case
from ..common.options import add_instruction_sets, add_timing, parse, parser, run_other_instruction_sets
from ..common.report import Report
from ..common.tables import dtype_name
from ..common.timing import Call, interleave

SIZES = ((64, 10), (256, 100), (256, 1000))  # images, classes


def each_sample(logits, target):
    """selection="sample" in plain PyTorch."""
    draws, batch, _ = logits.shape
    return cross_entropy(logits.flatten(0, 1).float(), target.repeat(draws), reduction="none").view(draws, batch).max(0)


def whole_batch(logits, target):
    """selection="batch" in plain PyTorch."""
    draws, batch, _ = logits.shape
    losses = cross_entropy(logits.flatten(0, 1).float(), target.repeat(draws), reduction="none").view(draws, batch)
    worst = losses.sum(1).argmax()
    return losses[worst], worst


def contenders(logits: torch.Tensor, target: torch.Tensor, selection: str) -> dict[str, Call]:
    eager = each_sample if selection == "sample" else whole_batch
    compiled = torch.compile(eager, dynamic=False)
    return {
        OURS: lambda: ops.best_of_k(logits, target, selection=selection),
        EAGER: lambda: eager(logits, target),
        COMPILED: lambda: compiled(logits, target),
        "sum": lambda: logits.sum(),
    }


def operands(draws: int, batch: int, classes: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits [draws, batch, classes], target [batch])."""
    logits = 3 * torch.randn(draws, batch, classes, generator=generator)
    return logits, torch.randint(classes, (batch,), generator=generator)


def cases(quick: bool) -> list[Case]:
    def make(batch: int, classes: int, selection: str) -> dict[str, Call]:
        return contenders(*operands(10, batch, classes, torch.Generator().manual_seed(0)), selection)

    return [
        Case(f"best_of_k, [10, {batch}, {classes}] {selection}", partial(make, batch, classes, selection))
        for batch, classes in (SIZES[:1] if quick else SIZES)
        for selection in ("sample", "batch")
    ]


def measure(logits, target, selection: str, repeats: int) -> dict:
    """A row: times on these operands, and our error against float64."""
    repeats = repeats if logits.numel() > 10**5 else 50 * repeats
    times = interleave(contenders(logits, target, selection), repeats)
    exact, _ = ops.best_of_k(logits.double(), target, selection=selection, backend="reference")
    ours, _ = ops.best_of_k(logits, target, selection=selection)
    return {
        "case": f"{list(logits.shape)} {dtype_name(logits.dtype)} {selection}",
        "robustperf ms": times[OURS] * 1e3, "eager ms": times[EAGER] * 1e3,
        "compiled ms": times[COMPILED] * 1e3, "sum ms": times["sum"] * 1e3,
        "x faster than eager": times[EAGER] / times[OURS],
        "x faster than compiled": times[COMPILED] / times[OURS],
        "times a sum": times[OURS] / times["sum"],
        "relative error": ((ours.double() - exact).abs() / exact).max().item(),
    }  # fmt: skip


def main() -> None:
    options = parser(__doc__)
    add_timing(options)
    options.add_argument("--draws", type=int, default=10)
    add_instruction_sets(options)
    arguments = parse(options)
    generator = torch.Generator().manual_seed(0)
    report = Report(
        f"best_of_k_{_native.isa()}", f"best_of_k, {arguments.draws} draws, {_native.isa()}", arguments.output
    )
    for batch, classes in SIZES:
        logits, target = operands(arguments.draws, batch, classes, generator)
        for dtype in (torch.float32, torch.bfloat16):
            for selection in ("sample", "batch"):
                report.add(**measure(logits.to(dtype), target, selection, arguments.repeats))
    report.show(bars=("case", "x faster than eager"))
    run_other_instruction_sets(arguments)


if __name__ == "__main__":
    main()
