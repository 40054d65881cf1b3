"""R Table 7: accuracy of MRT-k, MAT-k and MDA-k by k.

    python -m benchmarks.paper.robey_table7 [--data usps|gtsrb|svhn] [--k 1 5 10 20 50] [--scale cpu|full] [--out DIR]

The paper has SVHN, brightness low -> high: `--data svhn`, or `--data gtsrb` for traffic signs. The default, USPS with
background blue -> red, takes minutes on a CPU.
"""

from __future__ import annotations

from benchmarks.common.options import parse
from benchmarks.common.report import Report
from benchmarks.paper.robey import Scale, accuracies, objective, parser, scale_of, table_rows
from benchmarks.paper.robey_table5 import blue_to_red
from benchmarks.paper.robey_table6 import KERNELS, low_to_high
from robustperf.nuisance import BackgroundColour

CPU = Scale(width=8, epochs=4, samples=4096, tests=2000, seeds=1)
PAPER = {  # in percent, on SVHN
    "MAT": {1: 81.9, 5: 75.6, 10: 75.7, 20: 79.9, 50: 76.3},
    "MRT": {1: 81.2, 5: 81.7, 10: 82.6, 20: 83.2, 50: 82.5},
    "MDA": {1: 81.7, 5: 81.1, 10: 81.1, 20: 80.3, 50: 79.7},
}


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(methods=["MAT", "MRT", "MRT per sample", "MDA"])
    options.add_argument("--k", type=int, nargs="+", default=[1, 5, 10, 20, 50])
    options.add_argument("--data", choices=["usps", "gtsrb", "svhn"], default="usps")
    arguments = parse(options, selections=("methods", "k"))
    scale, root = scale_of(arguments, CPU), arguments.data_root
    if arguments.data == "usps":
        shift, kernel = "background blue -> red", BackgroundColour.blue_to_red()
        train, test = blue_to_red("usps", scale, root)
    else:
        shift, kernel = "brightness low -> high", KERNELS["brightness"]
        train, test = low_to_high(arguments.data, "brightness", scale, root)
    report = Report("robey_table7", f"R Table 7, {arguments.data}, {shift}, {scale}", arguments.output)
    for method in arguments.methods:
        for k in arguments.k:
            kind, *selection = method.split(" ", 1)
            name = " ".join([f"{kind}-{k}", *selection])
            found = accuracies({name: objective(method, kernel, k)}, train, test, scale)
            table_rows(report, arguments.data, found, {name: PAPER.get(method, {}).get(k)})
    report.show(bars=("case", "accuracy %"))


if __name__ == "__main__":
    main()
