"""T Table 1: test accuracies without regularisation, with Hein's regulariser and with co-training.

    python benchmarks/paper/tibo_table1.py [--scale cpu|full] [--data mnist ...] [--data-root DIR] [--out DIR]

lambda is the largest of `--hein` and of `--cotrain` whose accuracy is within a point of that without regularisation
(T section 3.3). CIFAR-10 is as much of it as the folder of the data sets holds; SVHN is left out where it is missing.
"""

from __future__ import annotations

from robey import Report
from tibo import SCALES, chosen_models, parser

PAPER = {  # in per cent
    "mnist": {"no reg.": 99.42, "Hein": 99.12, "co-training": 99.49},
    "cifar10": {"no reg.": 91.15, "Hein": 90.61, "co-training": 90.38},
    "svhn": {"no reg.": 92.64, "Hein": 92.08, "co-training": 92.33},
    "fashion-mnist": {"no reg.": 93.47, "Hein": 92.80, "co-training": 93.57},
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0]).parse_args()
    report = Report("tibo_table1", f"T Table 1, {SCALES[arguments.scale]}", arguments.out)
    for name, _, models in chosen_models(arguments):
        paper = PAPER[name]
        for method, trained in models.items():
            report.add(case=f"{name}, {method}", **{
                "lambda": trained.weight, "accuracy %": trained.accuracy,
                "above no reg.": trained.accuracy - models["no reg."].accuracy,
                "paper %": paper[method], "paper above no reg.": paper[method] - paper["no reg."],
            })  # fmt: skip
    report.show(bars=("case", "accuracy %"))


if __name__ == "__main__":
    main()
