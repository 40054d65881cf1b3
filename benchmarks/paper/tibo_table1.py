"""T Table 1: test accuracies without regularisation, with Hein's regulariser and with co-training.

    python -m benchmarks.paper.tibo_table1 [--scale cpu|full] [--data mnist ...] [--data-root DIR] [--out DIR]

lambda is the largest of 0.1, 0.3, 1, 3, ... whose accuracy is within a point of that without regularisation (T section
3.3). The search for it goes on until the accuracy falls; where it ends at the last of `--trials` instead, "grid's edge"
says so. "At matched accuracy" are the figures at exactly a point below, linear in the accuracy between this lambda and
the next. A data set that is not in the folder is left out. R is the area under the margin curve in the L2 norm, by the
paper's three attacks and by the preset "strong"; models and margins are shared with `tibo_figure3`.
"""

from __future__ import annotations

from functools import cache, partial

from benchmarks.common.options import parse
from benchmarks.common.report import Report
from benchmarks.paper.tibo import PRESETS, SCALES, Trained, comparisons, margins, parser
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
    for comparison in comparisons(arguments):
        name, paper = comparison.name, PAPER[comparison.name]
        plain = comparison.chosen["no reg."].accuracy

        @cache
        def area(preset: str, trained: Trained, test=comparison.test) -> float:
            return MarginCurve.from_margins(margins(trained, test, arguments, preset)).area

        for method, trained in comparison.chosen.items():
            report.add(case=f"{name}, {method}", **{
                "lambda": trained.weight, "accuracy %": trained.accuracy, "above no reg.": trained.accuracy - plain,
                "paper %": paper[method], "paper above no reg.": paper[method] - paper["no reg."],
                **{f"R, {preset}": area(preset, trained) for preset in PRESETS},
                "grid's edge": comparison.edge(method),
            })  # fmt: skip
        for method, search in comparison.searches.items():
            report.add(case=f"{name}, {method}, at matched accuracy", **{
                "lambda": search.matched_weight, "accuracy %": search.least, "above no reg.": search.least - plain,
                **{f"R, {preset}": search.matched(partial(area, preset)) for preset in PRESETS},
                "grid's edge": search.edge,
            })  # fmt: skip
    report.show(bars=("case", "accuracy %"))


if __name__ == "__main__":
    main()
