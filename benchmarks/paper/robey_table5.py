"""R Table 5: a kernel that was learned on one data set, reused on another.

    python -m benchmarks.paper.robey_table5 [--scale cpu|full] [--kernel known] [--rows usps ...] [--data-root DIR]

Background colour blue to red, learned on MNIST; decolourisation, learned on SVHN, for MNIST-M; traffic signs from high
to low brightness, learned on GTSRB, and snow and brightness, learned on ImageNet-C, for CURE-TSR. The row of MNIST is
not in the paper. `--kernel known` has the rows of the background with `BackgroundColour`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial

from benchmarks.common.options import parse
from benchmarks.paper.robey import CPU, Row, Scale, fill, learned, parser, report_of, scale_of
from benchmarks.paper.robey_data import DIGITS, Shift, between, blue_to_red, limited, loaded
from benchmarks.paper.robey_imagenet import add_severity, kernel_of
from robustperf.data import Dataset, load
from robustperf.data.domains import THRESHOLDS
from robustperf.kernel import Kernel
from robustperf.nuisance import BackgroundColour, Decolourise

PAPER = {  # in percent
    "mnist": {},
    "fashion-mnist": {"ERM": 69.3, "PGD": 67.7, "MRT": 81.4, "MDA": 80.1, "MAT": 76.1},
    "qmnist": {"ERM": 87.0, "PGD": 79.9, "MRT": 98.0, "MDA": 98.0, "MAT": 98.0},
    "emnist-letters": {"ERM": 63.5, "PGD": 49.3, "MRT": 86.1, "MDA": 85.9, "MAT": 84.1},
    "kmnist": {"ERM": 47.9, "PGD": 47.7, "MRT": 89.1, "MDA": 89.3, "MAT": 86.8},
    "usps": {"ERM": 89.9, "PGD": 87.4, "MRT": 93.3, "MDA": 93.4, "MAT": 91.9},
    "mnist-m": {"ERM": 76.1, "PGD": 75.3, "MRT": 77.1, "MDA": 78.3, "MAT": 79.2},
    "cure-tsr darker": {"ERM": 47.6, "PGD": 43.6, "MRT": 73.0, "MDA": 72.4, "MAT": 67.8},
    "cure-tsr snow": {"ERM": 52.0, "PGD": 53.0, "MRT": 59.4, "MDA": 62.2, "MAT": 59.4},
    "cure-tsr brightness": {"ERM": 41.5, "PGD": 40.2, "MRT": 46.6, "MDA": 46.7, "MAT": 47.5},
}
BACKGROUND = list(PAPER)[:6]
_FOR_G = 4000  # images of MNIST that the kernel is learned on, but for the full scale
TABLE5 = replace(CPU, epochs=5, iterations=500)


def background(name: str, scale: Scale, arguments: argparse.Namespace) -> Row:
    """Blue to red, learned on MNIST."""
    return _row(name, blue_to_red(name, scale, arguments), background_kernel(scale, arguments))


def background_kernel(scale: Scale, arguments: argparse.Namespace) -> Kernel:
    """Blue to red: learned on MNIST, or known."""
    if arguments.kernel == "known":
        return BackgroundColour.blue_to_red()
    images = replace(scale, samples=scale.samples and _FOR_G)  # the same for every table
    mnist = blue_to_red("mnist", images, arguments)
    half = len(mnist.a) // 2  # no image of A has its original in B
    a, b = mnist.a.limit(half), replace(mnist.b, x=mnist.b.x[half:], y=mnist.b.y[half:])
    return learned("mnist blue to red", a, b, scale, arguments)


def decolourisation(name: str, scale: Scale, arguments: argparse.Namespace) -> Row:
    """MNIST-M without its colours; G is learned on SVHN."""
    svhn, _ = loaded("svhn", scale, arguments)
    half = len(svhn) // 2
    a, b = svhn.limit(half), _grey(replace(svhn, x=svhn.x[half:], y=svhn.y[half:]))
    kernel = learned(f"{svhn.name} decolourisation", a, b, scale, arguments)
    train, test = (load(name, split, arguments.data_root) for split in ("train", "test"))
    return _row(name, limited(Shift(train, train, _grey(test)), scale), kernel)


def _grey(dataset: Dataset) -> Dataset:
    x = Decolourise().transform(dataset.x, dataset.x.new_ones(1, len(dataset), 1))[0]
    return replace(dataset, name=f"{dataset.name} grey", x=x)


def darker_signs(name: str, scale: Scale, arguments: argparse.Namespace) -> Row:
    """CURE-TSR from high to low brightness, with the bounds of GTSRB; G is learned on GTSRB."""
    signs = replace(scale, side=None if scale.side is None else DIGITS)
    gtsrb = between("gtsrb", "brightness:high", "brightness:low", signs, arguments)
    bounds = THRESHOLDS["gtsrb"]["brightness"]
    high, low = f"brightness:{bounds['high'][0]:g}-", f"brightness:-{bounds['low'][1]:g}"
    shift = between("cure-tsr", high, low, signs, arguments)
    return _row(name, limited(shift, scale), learned("gtsrb brightness high low", gtsrb.a, gtsrb.b, scale, arguments))


def from_imagenet(name: str, scale: Scale, arguments: argparse.Namespace) -> Row:
    """CURE-TSR under snow, or bright; G is learned on ImageNet-C."""
    arguments = argparse.Namespace(**{**vars(arguments), "data": "imagenet"})
    train = load("cure-tsr", "train", arguments.data_root)
    what = name.split()[1]
    if what == "snow":
        test = load("cure-tsr", "test", arguments.data_root, domain="snow:5")
        shift = Shift(train, train, test)
    else:
        bounds = THRESHOLDS["gtsrb"]["brightness"]
        low, high = f"brightness:-{bounds['low'][1]:g}", f"brightness:{bounds['high'][0]:g}-"
        shift = between("cure-tsr", low, high, replace(scale, side=None), arguments)
    return _row(name, limited(shift, scale), kernel_of(what, scale, arguments, size=DIGITS))


def _row(name: str, shift: Shift, kernel: Kernel) -> Row:
    return Row(shift.a, {name: shift.test}, kernel, target=shift.b, paper={name: PAPER[name]})


def main() -> None:
    options = parser(__doc__, known=True)
    add_severity(options)
    options.add_argument("--rows", nargs="+", default=list(PAPER), choices=PAPER)
    arguments = parse(options, selections=("methods", "rows", "kernel"))
    scale = scale_of(arguments, TABLE5)
    kinds = {name: background for name in BACKGROUND}
    if arguments.kernel == "learned":
        kinds |= {"mnist-m": decolourisation, "cure-tsr darker": darker_signs}
        kinds |= {"cure-tsr snow": from_imagenet, "cure-tsr brightness": from_imagenet}
    report = report_of("robey_table5", "R Table 5: kernels reused on other data", arguments, scale)
    fill(
        report,
        [partial(kinds[name], name, scale, arguments) for name in arguments.rows if name in kinds],
        arguments,
        scale,
    )
    report.show(bars=("case", "accuracy %"))


if __name__ == "__main__":
    main()
