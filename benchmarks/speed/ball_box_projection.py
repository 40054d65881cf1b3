"""The ball-box projection compared with the PyTorch reference, which sorts in float64, and with a copy.

python -m benchmarks.speed.ball_box_projection [--all-instruction-sets] [--out DIR]
"""

from __future__ import annotations

import math
from functools import partial

import torch

from robustperf import _native, ops
from robustperf.ops.halfspace_box_projection import NORM_CODES
from robustperf.ops.reference import ball_box_projection as reference

from ..common.cases import COMPILED, EAGER, OURS, Case
from ..common.options import add_instruction_sets, add_timing, parse, parser, run_other_instruction_sets
from ..common.report import Report
from ..common.tables import dtype_name
from ..common.timing import Call, interleave


def operands(batch: int, dim: int, dtype: torch.dtype, norm: float, generator: torch.Generator):
    """(x, delta, radius): points of images, many of them at a bound, and a step that overshoots the ball by half."""
    x = (1.5 * torch.rand(batch, dim, generator=generator, dtype=dtype) - 0.25).clamp(0, 1)
    delta = 0.1 * torch.randn(x.shape, generator=generator, dtype=dtype)
    return x, delta, torch.linalg.vector_norm((x + delta).clamp(0, 1) - x, norm, dim=1) / 1.5


def contenders(x: torch.Tensor, delta: torch.Tensor, radius: torch.Tensor, norm: float) -> dict[str, Call]:
    copy = torch.empty_like(x)
    return {
        OURS: lambda: ops.ball_box_projection(x, delta, radius, norm=norm),
        EAGER: lambda: ops.ball_box_projection(x, delta, radius, norm=norm, backend="reference"),
        "copy": lambda: copy.copy_(x),
    }


def cases(quick: bool) -> list[Case]:
    def make(batch: int, dim: int, norm: float) -> dict[str, Call]:
        x, delta, radius = operands(batch, dim, torch.float32, norm, torch.Generator().manual_seed(0))
        calls = contenders(x, delta, radius, norm)
        if not quick:
            compiled, low, high = torch.compile(reference.ball_box_projection), torch.zeros_like(x), torch.ones_like(x)
            calls[COMPILED] = lambda: compiled(x, delta, radius, low, high, NORM_CODES[norm])
        return calls

    sizes = [(64, 784, 2.0), (64, 784, 1.0)] if quick else [(256, 3072, norm) for norm in (2.0, math.inf, 1.0)]
    return [Case(f"ball_box_projection, [{b}, {d}] p={norm:g}", partial(make, b, d, norm)) for b, d, norm in sizes]


def measure(batch: int, dim: int, dtype: torch.dtype, norm: float, repeats: int, generator: torch.Generator) -> dict:
    """A row: times on random operands, and our error against float64."""
    x, delta, radius = operands(batch, dim, dtype, norm, generator)
    times = interleave(contenders(x, delta, radius, norm), repeats)
    exact = ops.ball_box_projection(x.double(), delta.double(), radius.double(), norm=norm, backend="reference")
    ours = ops.ball_box_projection(x, delta, radius, norm=norm)
    return {
        "case": f"[{batch}, {dim}] {dtype_name(dtype)} p={norm:g}",
        "robustperf ms": times[OURS] * 1e3,
        "reference ms": times[EAGER] * 1e3,
        "copy ms": times["copy"] * 1e3,
        "x faster than the reference": times[EAGER] / times[OURS],
        "times a copy": times[OURS] / times["copy"],
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
