"""T Table 1: test accuracies without regularisation, with Hein's regulariser and with co-training.

    python -m benchmarks.paper.tibo_table1 [--scale cpu|full] [--data mnist ...] [--data-root DIR] [--out DIR]

lambda is the largest of `--hein` and of `--cotrain` whose accuracy is within a point of that without regularisation
(T section 3.3). A data set that is not in the folder is left out. R is the area under the margin curve in the L2 norm,
by the paper's three attacks and by the preset "strong"; models and margins are shared with `tibo_figure3`.
"""

from __future__ import annotations

from benchmarks.common.options import parse
from benchmarks.common.report import Report
from benchmarks.paper.tibo import PRESETS, SCALES, chosen_models, margins, parser
from robustperf import MarginCurve

PAPER = {  # in percent
    "mnist": {"no reg.": 99.42, "Hein": 99.12, "co-training": 99.49},
    "cifar10": {"no reg.": 91.15, "Hein": 90.61, "co-training": 90.38},
    "svhn": {"no reg.": 92.64, "Hein": 92.08, "co-training": 92.33},
    "fashion-mnist": {"no reg.": 93.47, "Hein": 92.80, "co-training": 93.57},
}


def main() -> None:
    arguments = parse(parser(__doc__), selections=("data",))
    report = Report("tibo_table1", f"T Table 1, {SCALES[arguments.scale]}", arguments.output)
    for name, test, models in chosen_models(arguments):
        paper = PAPER[name]
        for method, trained in models.items():
            areas = {
                f"R, {preset}": MarginCurve.from_margins(margins(trained, test, arguments, preset)).area
                for preset in PRESETS
            }
            report.add(case=f"{name}, {method}", **{
                "lambda": trained.weight, "accuracy %": trained.accuracy,
                "above no reg.": trained.accuracy - models["no reg."].accuracy,
                "paper %": paper[method], "paper above no reg.": paper[method] - paper["no reg."], **areas,
            })  # fmt: skip
    report.show(bars=("case", "accuracy %"))


if __name__ == "__main__":
    main()
