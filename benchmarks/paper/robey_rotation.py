"""Rotation of MNIST (R equation 4.2): accuracy over the angle, ERM beside MRT, as a table and a picture.

python benchmarks/paper/robey_rotation.py [--scale cpu|full] [--most 60] [--data-root DIR] [--out DIR]
"""

from __future__ import annotations

import torch
from robey import Report, Scale, objective, parser, sample, scale_of, train

from robustperf.data import Dataset, load
from robustperf.nuisance import Rotation
from robustperf.training import evaluate

CPU = Scale(width=16, epochs=5, samples=4096, tests=2000, seeds=1)
SIZE = 32


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.set_defaults(methods=["ERM", "MRT", "MRT per sample"])
    options.add_argument("--most", type=float, default=60.0, help="degrees that MRT trains on, to either side")
    arguments = options.parse_args()
    scale = scale_of(arguments, CPU)
    dataset = sample(load("mnist", "train", arguments.data_root), scale.samples).resized(SIZE)
    test = sample(load("mnist", "test", arguments.data_root), scale.tests).resized(SIZE)
    kernel, turn = Rotation(arguments.most), Rotation(90)
    models = {method: train(objective(method, kernel), dataset, scale, 0) for method in arguments.methods}
    angles = list(range(-90, 91, 10))
    report = Report("robey_rotation", f"Rotated MNIST, MRT within {arguments.most:g} degrees, {scale}", arguments.out)
    for angle in angles:
        turned = Dataset("mnist", turn(test.x, torch.full((len(test), 1), float(angle))), test.y, test.classes)
        report.add(angle=angle, **{f"{name} %": 100 * evaluate(model, turned).top(1) for name, model in models.items()})
    report.show(over="angle")


if __name__ == "__main__":
    main()
