"""T Figure 7: test images and their adversarial examples by BG, with the L2 distances, three models side by side.

    python -m benchmarks.paper.tibo_figure7 [--scale cpu|full] [--data mnist ...] [--images N] [--data-root DIR]
                                            [--out DIR]

One picture for each data set, of the first test images of every label in turn; after each distance stands the label
that the model gives the example. The examples are those of the attack of T [11], BG, after the line search. The row of
the table is their mean distance. Models are shared with `tibo_figure3`.
"""

from __future__ import annotations

import torch

from benchmarks.common.options import parse
from benchmarks.common.report import Report
from benchmarks.paper.tibo import SCALES, comparisons, parser
from robustperf import margins, plot
from robustperf.attacks import BG
from robustperf.classifier import logits_of
from robustperf.data import Dataset

ORDER = ("co-training", "Hein", "no reg.")  # of the paper's columns


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=10, help="rows of each picture")
    arguments = parse(options, selections=("data",))
    report = Report("tibo_figure7", f"T Figure 7, BG, {SCALES[arguments.scale]}", arguments.output)
    for comparison in comparisons(arguments):
        rows = one_of_each(comparison.test, arguments.images)
        x, y = comparison.test.x[rows], comparison.test.y[rows]
        found, predicted = {}, {}
        for method in ORDER:
            model = comparison.chosen[method].model
            device = next(model.parameters()).device
            each = found[method] = margins(model, x.to(device), attacks=[BG(norm=2)], index=rows, keep_points=True)
            with torch.no_grad():
                predicted[method] = logits_of(model, each.point.to(device)).argmax(1).tolist()
            report.add(case=f"{comparison.name}, {method}", **{
                "mean distance": each.distance[each.found].mean().item(), "not found": int((~each.found).sum()),
                "images": len(x), "lambda": comparison.chosen[method].weight, "grid's edge": comparison.edge(method),
            })  # fmt: skip
        if (folder := arguments.output.folder) is not None:
            folder.mkdir(parents=True, exist_ok=True)
            plot.adversarial_examples(
                x, found, folder / f"tibo_figure7_{comparison.name}.png", predicted,
                title=f"{comparison.name}: the distance (L2) of the nearest adversarial example by BG, and its label",
                labels=[f"label {label}" for label in y.tolist()],
            )  # fmt: skip
    report.show(bars=("case", "mean distance"))


def one_of_each(dataset: Dataset, count: int) -> torch.Tensor:
    """[count] rows: the first of each label, then the second of each, and so on."""
    place = torch.empty(len(dataset), dtype=torch.int64)
    for label in dataset.y.unique():
        same = dataset.y == label
        place[same] = torch.arange(int(same.sum()))
    return torch.argsort(place * dataset.classes + dataset.y)[:count]


if __name__ == "__main__":
    main()
