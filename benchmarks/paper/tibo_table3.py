"""T Table 3: of which attack the closest adversarial examples are, in per cent of the points.

    python benchmarks/paper/tibo_table3.py [--scale cpu|full] [--data mnist ...] [--data-root DIR] [--out DIR]

The models and margins are those of `tibo_figure3.py`, made where they are missing: test images, which T section 3.2
evaluates on (the text beside the table says training examples). PGD in an L2 ball finds closer points than the
published attack in an L-infinity ball, `--pgd inf`, beside which BG finds more of the closest.
"""

from __future__ import annotations

from robey import Report
from tibo import SCALES, chosen_models, margins, parser

PAPER = {  # BG, FGSM, PGD, in per cent
    "mnist": {"no reg.": (97.84, 0.58, 1.58), "Hein": (71.92, 0.88, 27.20), "co-training": (13.68, 0.52, 85.80)},
    "cifar10": {"no reg.": (99.78, 0.00, 0.22), "Hein": (99.96, 0.00, 0.04), "co-training": (98.77, 0.00, 1.23)},
    "svhn": {"no reg.": (93.53, 6.38, 0.09), "Hein": (92.78, 7.21, 0.01), "co-training": (92.78, 7.21, 0.01)},
    "fashion-mnist": {"no reg.": (93.17, 6.18, 0.65), "Hein": (92.46, 7.03, 0.51), "co-training": (82.43, 6.28, 11.29)},
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0]).parse_args()
    report = Report("tibo_table3", f"T Table 3, PGD in L{arguments.pgd}, {SCALES[arguments.scale]}", arguments.out)
    for name, test, models in chosen_models(arguments):
        for method, trained in models.items():
            shares = margins(trained, test, arguments).fractions
            row = {f"{attack} %": 100 * shares[attack] for attack in ("BG", "FGSM", "PGD")}
            paper = dict(zip(("paper BG %", "paper FGSM %", "paper PGD %"), PAPER[name][method], strict=True))
            report.add(case=f"{name}, {method}", **row, **paper)
    report.show(bars=("case", "BG %"))


if __name__ == "__main__":
    main()
