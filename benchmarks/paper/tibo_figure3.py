"""T Figure 3: margin curves without regularisation, with Hein's regulariser and with co-training, and R, their areas.

    python -m benchmarks.paper.tibo_figure3 [--scale cpu|full] [--data mnist ...] [--data-root DIR] [--out DIR]

By the paper's three attacks and by the preset "strong", whose margins are closer to the truth. One picture for each
data set. R is the area under the curve in the L2 norm, the mean margin; "above no reg." has a 95 % confidence interval
over the test points, which are the same for all models. The paper gives R only in its pictures.
"""

from __future__ import annotations

from benchmarks.common.options import parse
from benchmarks.common.report import Report
from benchmarks.paper.tibo import PRESETS, SCALES, comparisons, margins, parser
from robustperf import MarginCurve, Margins, plot


def main() -> None:
    arguments = parse(parser(__doc__), selections=("data",))
    report = Report("tibo_figure3", f"T Figure 3, PGD in L{arguments.pgd}, {SCALES[arguments.scale]}", arguments.output)
    for comparison in comparisons(arguments):
        name, test, models = comparison.name, comparison.test, comparison.chosen
        curves = {}
        for preset in PRESETS:
            found = {method: margins(trained, test, arguments, preset) for method, trained in models.items()}
            for method, each in found.items():
                curve = curves[f"{method}, {preset}"] = MarginCurve.from_margins(each)
                above, half = difference(each, found["no reg."])
                report.add(case=f"{name}, {method}, {preset}", **{
                    "lambda": models[method].weight, "accuracy %": models[method].accuracy, "R": curve.area,
                    "above no reg.": above, "+- (95 %)": half, "median margin": curve.median,
                    "not found": curve.missing, "points": curve.count,
                    "grid's edge": comparison.edge(method),
                })  # fmt: skip
        if (folder := arguments.output.folder) is not None:
            folder.mkdir(parents=True, exist_ok=True)
            plot.margin_curves(curves, folder / f"tibo_figure3_{name}.png", title=f"{name}, after T Figure 3")
    report.show(bars=("case", "R"))


def difference(margins: Margins, others: Margins) -> tuple[float, float]:
    """(mean difference of the margins, half the width of its 95 % interval), margins clipped at the diameter."""
    d = margins.diameter
    differences = margins.distance.clamp(max=d) - others.distance.clamp(max=d)
    return differences.mean().item(), 1.96 * differences.std().item() / len(differences) ** 0.5


if __name__ == "__main__":
    main()
