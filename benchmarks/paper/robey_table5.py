"""The first rows of R Table 5: classifiers trained on blue backgrounds and tested on red ones.

    python -m benchmarks.paper.robey_table5 [--scale cpu|full] [--data-root DIR] [--out DIR]

The model of natural variation repaints the background; the paper learns it on MNIST. Of KMNIST only the test images are
used, a fifth of them for testing.
"""

from __future__ import annotations

import torch

from benchmarks.common.options import parse
from benchmarks.common.report import Report
from benchmarks.paper.robey import Scale, accuracies, objective, parser, sample, scale_of, table_rows
from robustperf import random
from robustperf.data import Dataset, load
from robustperf.nuisance import BackgroundColour

CPU = Scale(width=16, epochs=5, samples=4096, tests=2000, seeds=1)
SIZE = 32
BLUES = BackgroundColour((0.0, 0.0, 0.5), (0.3, 0.3, 1.0))
REDS = BackgroundColour((0.5, 0.0, 0.0), (1.0, 0.3, 0.3))
PAPER = {  # in percent; the table has no row of MNIST itself
    "mnist": {},
    "fashion-mnist": {"ERM": 69.3, "PGD": 67.7, "MRT": 81.4, "MDA": 80.1, "MAT": 76.1},
    "kmnist": {"ERM": 47.9, "PGD": 47.7, "MRT": 89.1, "MDA": 89.3, "MAT": 86.8},
    "usps": {"ERM": 89.9, "PGD": 87.4, "MRT": 93.3, "MDA": 93.4, "MAT": 91.9},
}


def on_background(dataset: Dataset, colours: BackgroundColour, key: int) -> Dataset:
    """Each image on a background of a random colour."""
    x = colours.draw(dataset.x, key=key, index=torch.arange(len(dataset)))[0]
    return Dataset(dataset.name, x, dataset.y, dataset.classes)


def train_and_test(name: str, root) -> tuple[Dataset, Dataset]:
    """(training images, test images)"""
    if name != "kmnist":
        return load(name, "train", root), load(name, "test", root)
    whole = load(name, "test", root)
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
    tests = len(whole) // 5
    return whole.rows(order[tests:]), whole.rows(order[:tests])


def blue_to_red(name: str, scale: Scale, root) -> tuple[Dataset, Dataset]:
    """(training images on blue, test images on red)"""
    train, test = train_and_test(name, root)
    train, test = sample(train, scale.samples).resized(SIZE), sample(test, scale.tests).resized(SIZE)
    return on_background(train, BLUES, random.key(1)), on_background(test, REDS, random.key(2))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", nargs="+", default=list(PAPER), choices=PAPER)
    arguments = parse(options, selections=("methods", "data"))
    scale, kernel = scale_of(arguments, CPU), BackgroundColour.blue_to_red()
    report = Report("robey_table5", f"R Table 5, background blue -> red, {scale}", arguments.output)
    for name in arguments.data:
        train, test = blue_to_red(name, scale, arguments.data_root)
        methods = {method: objective(method, kernel) for method in arguments.methods}
        table_rows(report, name, accuracies(methods, train, test, scale), PAPER[name])
    report.show(bars=("case", "accuracy %"))


if __name__ == "__main__":
    main()
