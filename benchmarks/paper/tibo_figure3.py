"""T Figure 3: margin curves without regularisation, with Hein's regulariser and with co-training, and R, their areas.

    python benchmarks/paper/tibo_figure3.py [--scale cpu|full] [--data mnist ...] [--data-root DIR] [--out DIR]

A picture for each data set. R is the area under the curve in the L2 norm, the mean margin; "above no reg." has its 95 %
confidence interval over the test points, each of which every model sees. The paper's R are in its pictures alone.
"""

from __future__ import annotations

from robey import Report
from tibo import SCALES, chosen_models, margins, parser

from robustperf import MarginCurve, Margins, plot


def main() -> None:
    arguments = parser(__doc__.splitlines()[0]).parse_args()
    report = Report("tibo_figure3", f"T Figure 3, PGD in L{arguments.pgd}, {SCALES[arguments.scale]}", arguments.out)
    for name, test, models in chosen_models(arguments):
        found = {method: margins(trained, test, arguments) for method, trained in models.items()}
        curves = {method: MarginCurve.from_margins(each) for method, each in found.items()}
        for method, curve in curves.items():
            above, half = difference(found[method], found["no reg."])
            report.add(case=f"{name}, {method}", **{
                "lambda": models[method].weight, "accuracy %": models[method].accuracy, "R": curve.area,
                "above no reg.": above, "+- (95 %)": half, "median margin": curve.median, "not found": curve.missing,
                "points": curve.count,
            })  # fmt: skip
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            plot.margin_curves(curves, arguments.out / f"tibo_figure3_{name}.png", title=f"{name}, after T Figure 3")
    report.show(bars=("case", "R"))


def difference(margins: Margins, others: Margins) -> tuple[float, float]:
    """(mean difference of the points' margins, half the width of its 95 % interval), of margins up to d."""
    d = margins.diameter
    differences = margins.distance.clamp(max=d) - others.distance.clamp(max=d)
    return differences.mean().item(), 1.96 * differences.std().item() / len(differences) ** 0.5


if __name__ == "__main__":
    main()
