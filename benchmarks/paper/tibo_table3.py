"""T Table 3: how often each attack finds the closest adversarial example, in percent of the points.

    python -m benchmarks.paper.tibo_table3 [--scale cpu|full] [--data mnist ...] [--data-root DIR] [--out DIR]

Models and margins are shared with `tibo_figure3`. The points are test images, as in T section 3.2 (the text beside the
table says training examples). PGD in an L2 ball finds closer points than the published attack in an L-infinity ball,
`--pgd inf`, with which BG finds more of the closest.
"""

from __future__ import annotations

from benchmarks.common.options import parse
from benchmarks.common.report import Report
from benchmarks.paper.tibo import SCALES, comparisons, margins, parser

PAPER = {  # BG, FGSM, PGD, in percent
    "mnist": {"no reg.": (97.84, 0.58, 1.58), "Hein": (71.92, 0.88, 27.20), "co-training": (13.68, 0.52, 85.80)},
    "cifar10": {"no reg.": (99.78, 0.00, 0.22), "Hein": (99.96, 0.00, 0.04), "co-training": (98.77, 0.00, 1.23)},
    "svhn": {"no reg.": (93.53, 6.38, 0.09), "Hein": (92.78, 7.21, 0.01), "co-training": (92.78, 7.21, 0.01)},
    "fashion-mnist": {"no reg.": (93.17, 6.18, 0.65), "Hein": (92.46, 7.03, 0.51), "co-training": (82.43, 6.28, 11.29)},
}


def main() -> None:
    arguments = parse(parser(__doc__), selections=("data",))
    report = Report("tibo_table3", f"T Table 3, PGD in L{arguments.pgd}, {SCALES[arguments.scale]}", arguments.output)
    for comparison in comparisons(arguments):
        name = comparison.name
        for method, trained in comparison.chosen.items():
            fractions = margins(trained, comparison.test, arguments).fractions
            row = {f"{attack} %": 100 * fractions[attack] for attack in ("BG", "FGSM", "PGD")}
            paper = dict(zip(("paper BG %", "paper FGSM %", "paper PGD %"), PAPER[name][method], strict=True))
            report.add(case=f"{name}, {method}", **row, **paper)
    report.show(bars=("case", "BG %"))


if __name__ == "__main__":
    main()
