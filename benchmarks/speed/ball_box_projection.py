"""The ball-box projection compared with the PyTorch reference, which sorts in float64, and with a copy.

python -m benchmarks.speed.ball_box_projection [--all-instruction-sets] [--out DIR]
"""

from __future__ import annotations

import math

import torch

from benchmarks.common.options import add_instruction_sets, add_timing, parse, parser, run_other_instruction_sets
from benchmarks.common.report import Report
from benchmarks.common.timing import interleave
from robustperf import _native, ops


def operands(batch: int, dim: int, dtype: torch.dtype, norm: float, generator: torch.Generator):
    """(x, delta, radius): points of images, many of them at a bound, and a step that overshoots the ball by half."""
    x = (1.5 * torch.rand(batch, dim, generator=generator, dtype=dtype) - 0.25).clamp(0, 1)
    delta = 0.1 * torch.randn(x.shape, generator=generator, dtype=dtype)
    return x, delta, torch.linalg.vector_norm((x + delta).clamp(0, 1) - x, norm, dim=1) / 1.5


def measure(batch: int, dim: int, dtype: torch.dtype, norm: float, repeats: int, generator: torch.Generator) -> dict:
    """A row: times on random operands, and our error against float64."""
    x, delta, radius = operands(batch, dim, dtype, norm, generator)
    copy = torch.empty_like(x)
    times = interleave({
        "robustperf": lambda: ops.ball_box_projection(x, delta, radius, norm=norm),
        "reference": lambda: ops.ball_box_projection(x, delta, radius, norm=norm, backend="reference"),
        "copy": lambda: copy.copy_(x),
    }, repeats)  # fmt: skip
    exact = ops.ball_box_projection(x.double(), delta.double(), radius.double(), norm=norm, backend="reference")
    ours = ops.ball_box_projection(x, delta, radius, norm=norm)
    return {
        "case": f"[{batch}, {dim}] {str(dtype).removeprefix('torch.')} p={norm:g}",
        "robustperf ms": times["robustperf"] * 1e3,
        "reference ms": times["reference"] * 1e3,
        "copy ms": times["copy"] * 1e3,
        "x faster than the reference": times["reference"] / times["robustperf"],
        "times a copy": times["robustperf"] / times["copy"],
        "relative error": ((ours.double() - exact).norm(dim=1) / exact.norm(dim=1)).max().item(),
    }


def main() -> None:
    options = parser(__doc__)
    add_timing(options)
    add_instruction_sets(options)
    arguments = parse(options)
    generator = torch.Generator().manual_seed(0)
    name = f"ball_box_projection_{_native.isa()}"
    report = Report(name, f"ball_box_projection, {_native.isa()}", arguments.output)
    for batch, dim in ((64, 784), (256, 784), (64, 3072), (256, 3072)):
        for norm in (2.0, math.inf, 1.0):
            report.add(**measure(batch, dim, torch.float32, norm, arguments.repeats, generator))
    for norm in (2.0, math.inf, 1.0):
        report.add(**measure(256, 3072, torch.float64, norm, arguments.repeats, generator))
    report.show(bars=("case", "x faster than the reference"))
    run_other_instruction_sets(arguments)


if __name__ == "__main__":
    main()
