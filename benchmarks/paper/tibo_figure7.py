"""T Figure 7: test images and their adversarial examples by BG, with the L2 distances, three models side by side.

    python -m benchmarks.paper.tibo_figure7 [--scale cpu|full] [--data mnist ...] [--images N] [--data-root DIR]
                                            [--out DIR]

One picture for each data set, of the first test images of every label in turn for which the attack finds an example
of each model; after each distance stands the label that the model gives the example. The attack is that of T [11], BG,
followed by the line search. The table has the mean distances over all images that were tried, ten times as many as are
shown. Models are shared with `tibo_figure3`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common.options import parse
from benchmarks.common.report import Report
from benchmarks.paper.tibo import SCALES, Comparison, comparisons, parser
from robustperf import Margins, margins, plot
from robustperf.attacks import BG
from robustperf.classifier import logits_of

ORDER = ("co-training", "Hein", "no reg.")  # of the paper's columns


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=10, help="rows of each picture")
    arguments = parse(options, selections=("data",))
    report = Report("tibo_figure7", "T Figure 7, BG", arguments.output, SCALES[arguments.scale])
    for comparison in comparisons(arguments):
        test = comparison.test
        tried = one_of_each(test.y, 10 * arguments.images)
        found = {}
        for method in ORDER:
            trained = comparison.chosen[method]
            x = test.x[tried].to(next(trained.model.parameters()).device)
            each = found[method] = margins(
                trained.model, x, attacks=[BG(norm=2)], index=tried.to(x.device), keep_points=True
            )
            report.add(case=f"{comparison.name}, {method}", **{
                "mean distance": each.distance[each.found].mean().item(), "not found": int((~each.found).sum()),
                "images": len(x), "lambda": trained.weight, "grid's edge": comparison.edge(method),
            })  # fmt: skip
        if (folder := arguments.output.folder) is not None:
            folder.mkdir(parents=True, exist_ok=True)
            everywhere = torch.stack([each.found for each in found.values()]).all(0).nonzero()[:, 0]
            shown = everywhere[one_of_each(test.y[tried[everywhere]], arguments.images)]
            draw(comparison, tried, shown, found, folder / f"tibo_figure7_{comparison.name}.png")
    report.show(bars=("case", "mean distance"))


def draw(
    comparison: Comparison, tried: torch.Tensor, shown: torch.Tensor, found: dict[str, Margins], path: Path
) -> None:
    """Draws the images `shown` of those that were tried."""
    rows, some, predicted = tried[shown], {}, {}
    for method, each in found.items():
        some[method] = replace(each, distance=each.distance[shown], found=each.found[shown], point=each.point[shown])
        model = comparison.chosen[method].model
        with torch.no_grad():
            points = some[method].point.to(next(model.parameters()).device)
            predicted[method] = logits_of(model, points).argmax(1).tolist()
    plot.adversarial_examples(
        comparison.test.x[rows], some, path, predicted,
        title=f"{comparison.name}: the distance (L2) of the nearest adversarial example by BG, and its label",
        labels=[f"label {label}" for label in comparison.test.y[rows].tolist()],
    )  # fmt: skip


def one_of_each(labels: torch.Tensor, count: int) -> torch.Tensor:
    """At most [count] positions: the first of each label, then the second of each, and so on."""
    place = torch.zeros(len(labels), dtype=torch.int64)
    for label in labels.unique():
        same = labels == label
        place[same] = torch.arange(int(same.sum()))
    return torch.argsort(place * (labels.max() + 1 if len(labels) else 1) + labels)[:count]


if __name__ == "__main__":
    main()
