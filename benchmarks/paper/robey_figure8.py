"""R Figure 8: the accuracy of classifiers by the number of iterations that their kernel was learned for.

    python -m benchmarks.paper.robey_figure8 [--data svhn] [--by contrast] [--scale cpu|full] [--out DIR]

The paper has SVHN, contrast low to high, and MRT. The default is traffic signs, brightness low to high; the kernel is
that of `robey_table6`. A second picture shows images under each snapshot of it.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import mean, stdev

import torch

from benchmarks.common.options import parse
from benchmarks.paper.robey import SNAPSHOTS, kernel_folder, parser, report_of, scale_of, trials
from benchmarks.paper.robey_data import name_of
from benchmarks.paper.robey_table6 import low_to_high
from robustperf.nuisance import LearnedKernel
from robustperf.plot import image_grid

KINDS = ("MRT", "MDA", "MAT", "MRT per sample")
_IMAGES = 4


def main() -> None:
    options = parser(__doc__, methods=KINDS, default=("MRT",))
    options.add_argument("--data", choices=["gtsrb", "svhn"], default="gtsrb")
    options.add_argument("--by", choices=["brightness", "contrast"], default="brightness")
    options.add_argument("--snapshots", type=int, nargs="+", default=list(SNAPSHOTS), choices=SNAPSHOTS)
    arguments = parse(options, selections=("methods", "snapshots"))
    scale = scale_of(arguments)
    row = low_to_high(arguments.data, arguments.by, scale, arguments)
    folder = kernel_folder(f"{name_of(row.train)} {arguments.by} low high", scale, arguments)
    kernels = {
        step: LearnedKernel.load(folder / "snapshots" / str(step))
        for step in arguments.snapshots
        if step <= scale.iterations
    } or {scale.iterations: row.kernel}
    title = f"R Figure 8: {arguments.data}, {arguments.by} low to high, by iterations of learning G"
    report = report_of("robey_figure8", title, arguments, scale)
    erm = _cells("ERM", [value for each in trials("ERM", row, scale, arguments) for value, _ in each.values()])
    for step, kernel in kernels.items():
        own, cells = replace(row, kernel=kernel), {}
        for method in arguments.methods:
            found = trials(method, own, scale, arguments)
            cells |= _cells(method, [value for each in found for value, _ in each.values()])
        report.add(iterations=step, **cells, **erm)
    report.show(over="iterations", log=True)
    if arguments.output.folder is not None:
        x = row.train.x[torch.linspace(0, len(row.train) - 1, _IMAGES).long()]
        drawn = torch.cat([kernel.draw(x, key=0, index=torch.arange(len(x))) for kernel in kernels.values()])
        path = arguments.output.folder / "robey_figure8_images.png"
        image_grid(x, drawn, path=path, title=title, names=[f"{step:,} iterations" for step in kernels])


def _cells(method: str, values: list[float]) -> dict[str, float]:
    spread = {f"{method} deviation": stdev(values)} if len(values) > 1 else {}
    return {f"{method} %": mean(values), **spread}


if __name__ == "__main__":
    main()
