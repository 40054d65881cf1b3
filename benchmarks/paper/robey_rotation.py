"""Rotated MNIST (R equation 4.2): accuracy of ERM and MRT by angle, as a table and a picture.

python -m benchmarks.paper.robey_rotation [--scale cpu|full] [--max-angle 60] [--data-root DIR] [--out DIR]
"""

from __future__ import annotations

import sys

import torch

from benchmarks.common.options import parse
from benchmarks.common.report import Report
from benchmarks.paper.robey import Scale, objective, parser, sample, scale_of, train
from robustperf.data import Dataset, load
from robustperf.nuisance import Rotation
from robustperf.training import evaluate

CPU = Scale(width=16, epochs=5, samples=4096, tests=2000, seeds=1)
SIZE = 32


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(methods=["ERM", "MRT", "MRT per sample"])
    options.add_argument("--max-angle", type=float, default=60.0, help="degrees that MRT trains on, to either side")
    arguments = parse(options, selections=("methods",))
    scale = scale_of(arguments, CPU)
    dataset = sample(load("mnist", "train", arguments.data_root), scale.samples).resized(SIZE)
    test = sample(load("mnist", "test", arguments.data_root), scale.tests).resized(SIZE)
    kernel, rotation = Rotation(arguments.max_angle), Rotation(90)
    models = {}
    for method in arguments.methods:
        print(f"training by {method}", file=sys.stderr)
        models[method] = train(objective(method, kernel), dataset, scale, 0)
    angles = list(range(-90, 91, 10))
    report = Report(
        "robey_rotation", f"Rotated MNIST, MRT within {arguments.max_angle:g} degrees, {scale}", arguments.output
    )
    for angle in angles:
        rotated = Dataset("mnist", rotation(test.x, torch.full((len(test), 1), float(angle))), test.y, test.classes)
        report.add(
            angle=angle, **{f"{name} %": 100 * evaluate(model, rotated).top(1) for name, model in models.items()}
        )
    report.show(over="angle")


if __name__ == "__main__":
    main()
