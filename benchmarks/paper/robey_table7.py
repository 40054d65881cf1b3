"""R Table 7: accuracy of MRT-k, MAT-k and MDA-k by k.

    python -m benchmarks.paper.robey_table7 [--data usps|gtsrb|svhn] [--k 1 5 10] [--kernel known] [--scale cpu|full]

The paper has SVHN, brightness low to high: `--data svhn`, or `--data gtsrb` for traffic signs. The default, USPS with
background blue to red, takes minutes on a CPU.
"""

from __future__ import annotations

import re
from dataclasses import replace

from benchmarks.common.options import parse
from benchmarks.paper.robey import CPU, Row, fill, parser, report_of, scale_of
from benchmarks.paper.robey_table5 import background
from benchmarks.paper.robey_table6 import low_to_high

TABLE7 = replace(CPU, width=8, epochs=4, samples=4096, tests=2000, seeds=1, iterations=500)
KINDS = ("MAT", "MRT", "MRT per sample", "MDA")
PAPER = {  # in percent, on SVHN
    "MAT": {1: 81.9, 5: 75.6, 10: 75.7, 20: 79.9, 50: 76.3},
    "MRT": {1: 81.2, 5: 81.7, 10: 82.6, 20: 83.2, 50: 82.5},
    "MDA": {1: 81.7, 5: 81.1, 10: 81.1, 20: 80.3, 50: 79.7},
}


def with_k(method: str, k: int) -> str:
    """The method's name with its k: "MRT-5 per sample"."""
    return re.sub(r"^\w+", rf"\g<0>-{k}", method)


def main() -> None:
    options = parser(__doc__, methods=KINDS, known=True)
    options.add_argument("--k", type=int, nargs="+", default=[1, 5, 10, 20, 50])
    options.add_argument("--data", choices=["usps", "gtsrb", "svhn"], default="usps")
    arguments = parse(options, selections=("methods", "k", "kernel"))
    scale = scale_of(arguments, TABLE7)
    paper = {with_k(method, k): value for method, of_k in PAPER.items() for k, value in of_k.items()}
    arguments.methods = [with_k(method, k) for method in arguments.methods for k in arguments.k]

    def row() -> Row:
        if arguments.data == "usps":
            found = background("usps", scale, arguments)
        else:
            found = low_to_high(arguments.data, "brightness", scale, arguments)
        return replace(found, tests={arguments.data: next(iter(found.tests.values()))}, paper={arguments.data: paper})

    what = "background blue to red" if arguments.data == "usps" else "brightness low to high"
    report = report_of("robey_table7", f"R Table 7: accuracy by k, {arguments.data}, {what}", arguments, scale)
    fill(report, [row], arguments, scale)
    report.show(bars=("case", "accuracy %"))


if __name__ == "__main__":
    main()
