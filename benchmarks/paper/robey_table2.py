"""R Table 2: CURE-TSR beyond the levels of a challenge that G was learned on.

    python -m benchmarks.paper.robey_table2 [--scale cpu|full] [--rows snow ...] [--data-root DIR] [--out DIR]

G is learned from level 0 to level 2. "+Aug" methods are trained on the labelled images of both levels, MRT on level 0.
Tests are on levels 3 to 5.
"""

from __future__ import annotations

import argparse
from functools import partial

from benchmarks.common.options import parse
from benchmarks.paper.robey import Row, Scale, fill, learned, parser, report_of, sample, scale_of
from robustperf.data import load

LEVELS = (3, 4, 5)
PAPER = {  # in percent, by method and level
    "snow": {"ERM+Aug": (86.5, 74.8, 60.9), "PGD+Aug": (82.9, 77.3, 61.8), "MRT": (88.0, 77.8, 70.7)},
    "haze": {"ERM+Aug": (55.2, 54.0, 47.5), "PGD+Aug": (83.8, 63.1, 53.4), "MRT": (83.9, 79.1, 70.1)},
    "decolorization": {"ERM+Aug": (87.9, 85.1, 78.8), "PGD+Aug": (84.7, 75.2, 64.9), "MRT": (90.5, 89.6, 89.4)},
    "rain": {"ERM+Aug": (72.7, 71.7, 66.9), "PGD+Aug": (68.9, 66.4, 60.5), "MRT": (80.7, 78.7, 74.8)},
}


def challenge(name: str, scale: Scale, arguments: argparse.Namespace) -> Row:
    a, b = (load("cure-tsr", "train", arguments.data_root, domain=each) for each in (None, f"{name}:2"))
    tests = {
        f"{name}, level {level}": sample(
            load("cure-tsr", "test", arguments.data_root, domain=f"{name}:{level}"), scale.tests
        )
        for level in LEVELS
    }
    paper = {
        case: {method: values[place] for method, values in PAPER[name].items()} for place, case in enumerate(tests)
    }
    kernel = learned(f"cure-tsr {name} 2", a, b, scale, arguments)
    return Row(sample(a, scale.samples), tests, kernel, target=sample(b, scale.samples), paper=paper)


def main() -> None:
    options = parser(__doc__, methods=("ERM+Aug", "PGD+Aug", "MRT", "ERM", "MDA", "MAT"), default=tuple(PAPER["snow"]))
    options.add_argument("--rows", nargs="+", default=list(PAPER), choices=PAPER)
    arguments = parse(options, selections=("methods", "rows"))
    scale = scale_of(arguments)
    report = report_of("robey_table2", "R Table 2: CURE-TSR at levels that G has not seen", arguments, scale)
    fill(report, [partial(challenge, name, scale, arguments) for name in arguments.rows], arguments, scale)
    report.show(bars=("case", "accuracy %"))


if __name__ == "__main__":
    main()
