"""Rotated MNIST (R equation 4.2): accuracy of ERM and MRT by angle, as a table and a picture.

    python -m benchmarks.paper.robey_rotation [--scale cpu|full] [--kernel known] [--max-angle 60] [--data-root DIR]

G is learned from upright digits to digits that are rotated by at most `--max-angle`, or is this rotation itself.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import mean, stdev

import torch

from benchmarks.common.options import parse
from benchmarks.paper.robey import CPU, METHODS, Row, learned, parser, report_of, sample, scale_of, trials
from benchmarks.paper.robey_data import DIGITS
from robustperf import random
from robustperf.data import load
from robustperf.nuisance import Rotation

ROTATION = replace(CPU, width=16, epochs=5, batch=64, samples=4096, tests=2000, seeds=1, iterations=500)
_ANGLES = range(-90, 91, 10)


def main() -> None:
    options = parser(__doc__, methods=METHODS, default=("ERM", "MRT", "MRT per sample"), known=True)
    options.add_argument("--max-angle", type=float, default=60.0, help="degrees that MRT trains on, to either side")
    arguments = parse(options, selections=("methods", "kernel"))
    scale = scale_of(arguments, ROTATION)
    dataset = sample(load("mnist", "train", arguments.data_root), scale.samples).resized(DIGITS)
    test = sample(load("mnist", "test", arguments.data_root), scale.tests).resized(DIGITS)
    kernel, turned = Rotation(arguments.max_angle), Rotation(90)
    if arguments.kernel == "learned":
        half = len(dataset) // 2  # no image of A has its original in B
        rotated = kernel.draw(dataset.x[half:], key=random.key(4), index=torch.arange(half, len(dataset)))[0]
        kernel = learned(f"mnist rotated {arguments.max_angle:g}", dataset.x[:half], rotated, scale, arguments)
    tests = {
        f"{angle}": replace(test, name=f"mnist {angle}", x=turned(test.x, torch.full((len(test), 1), float(angle))))
        for angle in _ANGLES
    }
    row = Row(dataset, tests, kernel)
    found = {method: trials(method, row, scale, arguments) for method in arguments.methods}
    title = f"Rotated MNIST, G within {arguments.max_angle:g} degrees"
    report = report_of("robey_rotation", title, arguments, scale)
    for angle in _ANGLES:
        cells = {}
        for method, of_seeds in found.items():
            values = [each[str(angle)][0] for each in of_seeds]
            cells[f"{method} %"] = mean(values)
            if len(values) > 1:
                cells[f"{method} deviation"] = stdev(values)
        report.add(angle=angle, **cells)
    report.show(over="angle")


if __name__ == "__main__":
    main()
