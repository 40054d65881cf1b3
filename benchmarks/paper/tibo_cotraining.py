"""Co-training (T section 3.1) with other generators than the paper's, beside Hein's regulariser, at matched accuracy.

    python -m benchmarks.paper.tibo_cotraining [--data digits|mnist ...] [--variants NAME ...] [--scale cpu|full]
                                               [--data-root DIR] [--out DIR]

The gain of fooling f is at most 1 in T equation 9, so that it pays only within a distance of sqrt(2) of x. The variants
update the generator five times a step, widen it to the paper's 128 channels, or take the mean over the pixels in place
of the sum as the distance. "fooled %" is the percentage of the test images to whose generated image the classifier
gives another label, "distance" their mean L2 distance. lambda and R are found as in `tibo_table1`, R by the preset
"strong".
"""

from __future__ import annotations

from functools import partial
from math import prod

import torch

from benchmarks.common.options import parse
from benchmarks.common.report import Report
from benchmarks.paper.robey import sample
from benchmarks.paper.tibo import DATA, SCALES, Generator, Trained, margins, parser, trained
from benchmarks.paper.weight_search import search_weight
from robustperf import MarginCurve
from robustperf.classifier import logits_of
from robustperf.data import Dataset, load

VARIANTS = ("Hein", "paper", "5 steps", "mean distance", "5 steps, mean distance", "128 channels")


def generator(variant: str, pixels: int) -> Generator:
    return Generator(
        width=128 if "128 channels" in variant else None,
        steps=5 if "5 steps" in variant else 1,
        distance_weight=1 / pixels if "mean distance" in variant else 1.0,
    )


@torch.no_grad()
def fooled(found: Trained, test: Dataset) -> tuple[float, float]:
    """(the percentage of the test images whose generated image gets another label, the mean distance)"""
    changed, distance = [], []
    for x in test.x.split(256):
        generated = found.generator(x)
        changed.append(logits_of(found.model, generated).argmax(1) != logits_of(found.model, x).argmax(1))
        distance.append((generated - x).flatten(1).norm(dim=1))
    return 100 * torch.cat(changed).double().mean().item(), torch.cat(distance).mean().item()


def main() -> None:
    options = parser(__doc__, choices=("digits", *DATA), data=["digits"])
    options.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    arguments = parse(options, selections=("data", "variants"))
    scale = SCALES[arguments.scale]
    report = Report("tibo_cotraining", f"Co-training's generator, {scale}", arguments.output)
    for name in arguments.data:
        train, test = (load(name, split, arguments.data_root) for split in ("train", "test"))
        train, test = sample(train, scale.samples, arguments.seed), sample(test, scale.tests)
        folder = arguments.runs / arguments.scale / f"seed-{arguments.seed}" / name
        train_with = partial(trained, train=train, test=test, scale=scale, folder=folder, seed=arguments.seed)

        def area(found: Trained, test=test) -> float:
            return MarginCurve.from_margins(margins(found, test, arguments, "strong")).area

        plain = train_with("no reg.", None)
        report.add(case=f"{name}, no reg.", **{"accuracy %": plain.accuracy, "R": area(plain)})
        for variant in arguments.variants:
            place, method = (0, "Hein") if variant == "Hein" else (1, "co-training")
            search = search_weight(
                partial(train_with, method, generator=generator(variant, prod(train.x.shape[1:]))),
                (arguments.hein, arguments.cotrain)[place], plain.accuracy - arguments.within, arguments.trials[place],
            )  # fmt: skip
            chosen = search.tried[search.chosen]
            change, distance = (None, None) if chosen.generator is None else fooled(chosen, test)
            report.add(case=f"{name}, {variant}", **{
                "lambda": chosen.weight, "accuracy %": chosen.accuracy, "R": area(chosen),
                "R at matched accuracy": search.matched(area), "fooled %": change, "distance": distance,
                "grid's edge": search.edge,
            })  # fmt: skip
    report.show(bars=("case", "R"))


if __name__ == "__main__":
    main()
