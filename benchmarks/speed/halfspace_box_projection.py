"""The halfspace-box projection compared with a sort-based PyTorch implementation, its compiled form, and a copy.

python -m benchmarks.speed.halfspace_box_projection [--all-instruction-sets] [--out DIR]
"""

from __future__ import annotations

import math
from functools import partial

import torch

from robustperf import _native, ops
from robustperf.ops.halfspace_box_projection import NORM_CODES
from robustperf.ops.reference import halfspace_box_projection as reference

from ..common.cases import COMPILED, EAGER, OURS, Case
from ..common.options import add_instruction_sets, add_timing, parse, parser, run_other_instruction_sets
from ..common.report import Report
from ..common.tables import dtype_name
from ..common.timing import Call, interleave


def sort_based(x, w, c, norm):
    """Plain PyTorch: the reference's arithmetic in the dtype of x."""
    weight, h = w.abs(), torch.where(w > 0, 1 - x, x)
    feasible = (weight * h).sum(1) >= c
    solve = reference._heaviest_first if norm == 1 else reference._evenly
    move = solve(weight, h, c[:, None], NORM_CODES[norm])
    return w.sign() * torch.where(feasible[:, None], move, h), feasible


def operands(batch: int, dim: int, dtype: torch.dtype, generator: torch.Generator):
    """(x, w, c): points in the box, normals, and offsets that most rows can reach."""
    x = torch.rand(batch, dim, generator=generator, dtype=dtype)
    w = torch.randn(x.shape, generator=generator, dtype=dtype)
    headroom = torch.where(w > 0, 1 - x, x)
    return x, w, (w.abs() * headroom).sum(1) * torch.rand(batch, generator=generator, dtype=dtype) * 0.9


def contenders(x: torch.Tensor, w: torch.Tensor, c: torch.Tensor, norm: float) -> dict[str, Call]:
    copy, compiled = torch.empty_like(x), torch.compile(sort_based)
    return {
        OURS: lambda: ops.halfspace_box_projection(x, w, c, norm=norm),
        EAGER: lambda: sort_based(x, w, c, norm),
        COMPILED: lambda: compiled(x, w, c, norm),
        "copy": lambda: copy.copy_(x),
    }


def cases(quick: bool) -> list[Case]:
    def make(batch: int, dim: int, dtype: torch.dtype, norm: float) -> dict[str, Call]:
        return contenders(*operands(batch, dim, dtype, torch.Generator().manual_seed(0)), norm)

    sizes = [(64, 784, torch.float32, 2.0)]
    if not quick:
        sizes = [(256, 3072, dtype, p) for dtype in (torch.float32, torch.float64) for p in (2.0, math.inf, 1.0)]
    return [
        Case(f"halfspace_box_projection, [{b}, {d}] {dtype_name(dtype)} p={norm:g}", partial(make, b, d, dtype, norm))
        for b, d, dtype, norm in sizes
    ]


def measure(x, w, c, norm: float, repeats: int) -> dict:
    """A row: times on these operands, and our error against float64."""
    times = interleave(contenders(x, w, c, norm), repeats)
    exact, _ = ops.halfspace_box_projection(x.double(), w.double(), c.double(), norm=norm, backend="reference")
    ours, _ = ops.halfspace_box_projection(x, w, c, norm=norm)
    return {
        "case": f"{dtype_name(x.dtype)} p={norm:g}",
        "robustperf ms": times[OURS] * 1e3, "sort-based ms": times[EAGER] * 1e3,
        "compiled ms": times[COMPILED] * 1e3, "copy ms": times["copy"] * 1e3,
        "x faster than sort-based": times[EAGER] / times[OURS],
        "x faster than compiled": times[COMPILED] / times[OURS],
        "times a copy": times[OURS] / times["copy"],
        "relative error": ((ours.double() - exact).norm(dim=1) / exact.norm(dim=1)).max().item(),
    }  # fmt: skip


def main() -> None:
    options = parser(__doc__)
    add_timing(options)
    options.add_argument("--batch", type=int, default=256)
    options.add_argument("--dim", type=int, default=3072)
    add_instruction_sets(options)
    arguments = parse(options)
    generator = torch.Generator().manual_seed(0)
    report = Report(
        f"halfspace_box_projection_{_native.isa()}",
        f"halfspace_box_projection [{arguments.batch}, {arguments.dim}], {_native.isa()}",
        arguments.output,
    )
    for dtype in (torch.float32, torch.float64):
        x, w, c = operands(arguments.batch, arguments.dim, dtype, generator)
        for norm in (2.0, float("inf"), 1.0):
            report.add(**measure(x, w, c, norm, arguments.repeats))
    report.show(bars=("case", "x faster than sort-based"))
    run_other_instruction_sets(arguments)


if __name__ == "__main__":
    main()
