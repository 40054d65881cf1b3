"""The worst of k draws beside cross_entropy and max in PyTorch, their compiled form, and a sum over the logits.

python benchmarks/speed/best_of_k.py [--all-instruction-sets] [--out DIR]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import Report, add_instruction_sets, interleave, parser, run_other_instruction_sets

from robustperf import _native, ops


def each_sample(logits, target):
    """What one writes in PyTorch, selection="sample"."""
    draws, batch, _ = logits.shape
    return cross_entropy(logits.flatten(0, 1).float(), target.repeat(draws), reduction="none").view(draws, batch).max(0)


def whole_batch(logits, target):
    """What one writes in PyTorch, selection="batch"."""
    draws, batch, _ = logits.shape
    losses = cross_entropy(logits.flatten(0, 1).float(), target.repeat(draws), reduction="none").view(draws, batch)
    worst = losses.sum(1).argmax()
    return losses[worst], worst


def measure(logits, target, selection: str, repeats: int) -> dict:
    """One row: times of the contenders on these operands, and our error against float64."""
    eager = each_sample if selection == "sample" else whole_batch
    compiled = torch.compile(eager, dynamic=False)
    times = interleave({
        "robustperf": lambda: ops.best_of_k(logits, target, selection=selection),
        "eager": lambda: eager(logits, target),
        "compiled": lambda: compiled(logits, target),
        "sum": lambda: logits.sum(),
    }, repeats if logits.numel() > 10**5 else 50 * repeats)  # fmt: skip
    truth, _ = ops.best_of_k(logits.double(), target, selection=selection, backend="reference")
    ours, _ = ops.best_of_k(logits, target, selection=selection)
    return {
        "case": f"{list(logits.shape)} {str(logits.dtype).removeprefix('torch.')} {selection}",
        "robustperf ms": times["robustperf"] * 1e3, "eager ms": times["eager"] * 1e3,
        "compiled ms": times["compiled"] * 1e3, "sum ms": times["sum"] * 1e3,
        "x faster than eager": times["eager"] / times["robustperf"],
        "x faster than compiled": times["compiled"] / times["robustperf"],
        "sums": times["robustperf"] / times["sum"],
        "relative error": ((ours.double() - truth).abs() / truth).max().item(),
    }  # fmt: skip


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--draws", type=int, default=10)
    add_instruction_sets(options)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    report = Report(f"best_of_k_{_native.isa()}", f"best_of_k, {arguments.draws} draws, {_native.isa()}", arguments.out)
    for batch, classes in ((64, 10), (256, 100), (256, 1000)):
        logits = 3 * torch.randn(arguments.draws, batch, classes, generator=generator)
        target = torch.randint(classes, (batch,), generator=generator)
        for dtype in (torch.float32, torch.bfloat16):
            for selection in ("sample", "batch"):
                report.add(**measure(logits.to(dtype), target, selection, arguments.repeats))
    report.show(bars=("case", "x faster than eager"))
    run_other_instruction_sets(arguments)


if __name__ == "__main__":
    main()
