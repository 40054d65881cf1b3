"""R Table 4: two shifts at once, by composing two kernels that were learned apart.

    python -m benchmarks.paper.robey_table4 [--data imagenet] [--scale cpu|full] [--data-root DIR] [--out DIR]

G(x, delta) = G1(G2(x, delta), delta) (R equation 6.1). Digits and traffic signs: training images with low brightness or
low contrast, test images with high brightness and high contrast; the row of traffic signs is not in the paper. The
other rows are on ImageNet's classes 10 to 59, see `robey_table3`.
"""

from __future__ import annotations

import argparse
from functools import partial

from benchmarks.common.options import parse
from benchmarks.paper.robey import METHODS, Row, Scale, fill, learned, parser, report_of, sample, scale_of
from benchmarks.paper.robey_data import loaded
from benchmarks.paper.robey_imagenet import FOR_CLASSIFIERS, add_options, corrupted, images, kernel_of
from robustperf.data import domain
from robustperf.kernel import Kernel
from robustperf.nuisance import Compose

PAPER = {  # in percent
    "svhn": {"ERM": 54.9, "MDA": 67.2},
    "gtsrb": {},
    "brightness+contrast": {"ERM": 13.6, "MDA": 49.9},
    "brightness+snow": {"ERM": 53.3, "MDA": 58.3},
    "brightness+fog": {"ERM": 50.3, "MDA": 58.8},
    "contrast+fog": {"ERM": 8.40, "MDA": 23.2},
}
UNION, BOTH = "brightness:low | contrast:low", "brightness:high & contrast:high"


def brightness_and_contrast(name: str, scale: Scale, arguments: argparse.Namespace) -> Row:
    """Digits or traffic signs."""
    train, test = loaded(name, scale, arguments)
    parts = []
    for by in ("brightness", "contrast"):
        low, high = (domain(train, f"{by}:{level}") for level in ("low", "high"))
        parts.append(learned(f"{train.name} {by} low high", low, high, scale, arguments))
    case = f"{name}, brightness and contrast"
    a, both = sample(domain(train, UNION), scale.samples), sample(domain(test, BOTH), scale.tests)
    return Row(a, {case: both}, composed(*parts), paper={case: PAPER[name]})


def corruptions(names: str, scale: Scale, arguments: argparse.Namespace) -> Row:
    """ImageNet under two corruptions."""
    test = corrupted(names, FOR_CLASSIFIERS, scale, arguments)
    kernel = composed(*(kernel_of(name, scale, arguments) for name in names.split("+")))
    case = f"{arguments.data}, {names.replace('+', ' and ')}"
    train = images("train", FOR_CLASSIFIERS, scale, arguments)
    return Row(train, {case: test}, kernel, paper={case: PAPER[names]}, imagenet=True)


def composed(first: Kernel, second: Kernel) -> Kernel:
    """G1(G2(x, delta), delta)."""
    return Compose([second, first], shared=True)


def main() -> None:
    options = parser(__doc__, methods=METHODS, default=("ERM", "ERM converged", "MDA"))
    add_options(options)
    options.add_argument("--rows", nargs="+", default=list(PAPER), choices=PAPER)
    arguments = parse(options, selections=("methods", "rows"))
    scale = scale_of(arguments)
    report = report_of("robey_table4", "R Table 4: two shifts at once, kernels learned apart", arguments, scale)
    kinds = {"svhn": brightness_and_contrast, "gtsrb": brightness_and_contrast}
    rows = [partial(kinds.get(name, corruptions), name, scale, arguments) for name in arguments.rows]
    fill(report, rows, arguments, scale)
    report.show(bars=("case", "accuracy %"))


if __name__ == "__main__":
    main()
