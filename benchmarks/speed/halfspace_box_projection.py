"""The halfspace-box projection compared with a sort-based PyTorch implementation, its compiled form, and a copy.

python -m benchmarks.speed.halfspace_box_projection [--all-instruction-sets] [--out DIR]
"""

from __future__ import annotations

import torch

from benchmarks.common.options import add_instruction_sets, add_timing, parse, parser, run_other_instruction_sets
from benchmarks.common.report import Report
from benchmarks.common.timing import interleave
from robustperf import _native, ops
from robustperf.ops.halfspace_box_projection import NORM_CODES
from robustperf.ops.reference import halfspace_box_projection as reference


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


def measure(x, w, c, norm: float, repeats: int) -> dict:
    """A row: times on these operands, and our error against float64."""
    copy, compiled = torch.empty_like(x), torch.compile(sort_based)
    times = interleave({
        "robustperf": lambda: ops.halfspace_box_projection(x, w, c, norm=norm),
        "sort": lambda: sort_based(x, w, c, norm),
        "compiled": lambda: compiled(x, w, c, norm),
        "copy": lambda: copy.copy_(x),
    }, repeats)  # fmt: skip
    exact, _ = ops.halfspace_box_projection(x.double(), w.double(), c.double(), norm=norm, backend="reference")
    ours, _ = ops.halfspace_box_projection(x, w, c, norm=norm)
    return {
        "case": f"{str(x.dtype).removeprefix('torch.')} p={norm:g}",
        "robustperf ms": times["robustperf"] * 1e3, "sort-based ms": times["sort"] * 1e3,
        "compiled ms": times["compiled"] * 1e3, "copy ms": times["copy"] * 1e3,
        "x faster than sort-based": times["sort"] / times["robustperf"],
        "x faster than compiled": times["compiled"] / times["robustperf"],
        "times a copy": times["robustperf"] / times["copy"],
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
