"""R Table 3: ImageNet to ImageNet-C, with G learned on other classes.

    python -m benchmarks.paper.robey_table3 [--data imagenet] [--scale cpu|full] [--data-root DIR] [--out DIR]

G is learned on classes 0 to 9; classifiers are trained and tested on classes 10 to 59, with ResNet-50 at the full
scale. By default the images are Tiny ImageNet's, at 32x32 pixels but for the full scale, under known corruptions;
`robey_imagenet.py` describes ImageNet's folders.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial

from benchmarks.common.options import parse
from benchmarks.paper.robey import CPU, Row, Scale, fill, parser, report_of, scale_of
from benchmarks.paper.robey_imagenet import FOR_CLASSIFIERS, add_options, corrupted, images, kernel_of

PAPER = {  # top-1 and top-5 in percent
    "snow": {"ERM": (20.9, 49.9), "AugMix": (1.10, 8.3), "MDA": (31.1, 61.2)},
    "contrast": {"ERM": (41.1, 73.4), "AugMix": (0.72, 6.76), "MDA": (50.0, 79.5)},
    "brightness": {"ERM": (26.9, 59.2), "AugMix": (0.56, 5.20), "MDA": (53.0, 81.7)},
    "fog": {"ERM": (8.7, 29.5), "AugMix": (29.1, 57.8), "MDA": (24.6, 50.8)},
    "frost": {"ERM": (16.3, 39.0), "AugMix": (29.5, 58.4), "MDA": (36.0, 67.2)},
}
TABLE3 = replace(CPU, epochs=15, samples=None, iterations=1000)


def corruption(name: str, scale: Scale, arguments: argparse.Namespace) -> Row:
    test = corrupted(name, FOR_CLASSIFIERS, scale, arguments)
    kernel = kernel_of(name, scale, arguments)
    train = images("train", FOR_CLASSIFIERS, scale, arguments)
    return Row(train, {name: test}, kernel, paper={name: PAPER[name]}, imagenet=True)


def main() -> None:
    options = parser(
        __doc__, methods=("ERM", "ERM converged", "AugMix", "MDA", "MRT", "MAT"), default=("ERM", "AugMix", "MDA")
    )
    add_options(options)
    options.add_argument("--rows", nargs="+", default=list(PAPER), choices=PAPER)
    arguments = parse(options, selections=("methods", "rows"))
    scale = scale_of(arguments, TABLE3)
    title = f"R Table 3: {arguments.data} under corruptions, G learned on other classes"
    report = report_of("robey_table3", title, arguments, scale)
    fill(report, [partial(corruption, name, scale, arguments) for name in arguments.rows], arguments, scale)
    report.show(bars=("case", "accuracy %"))


if __name__ == "__main__":
    main()
