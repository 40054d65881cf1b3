"""What the benchmarks on T section 3 (Tibo et al. 2021) share: scales, training by three methods, the choice of lambda,
margins."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch

from benchmarks.common import options as common
from benchmarks.common.settings import Settings
from benchmarks.paper.robey import sample
from benchmarks.paper.weight_search import WeightSearch, search_weight
from robustperf import nets
from robustperf.attacks import BG, FGSM, PGD
from robustperf.attacks.named import attacks_of
from robustperf.data import Dataset, load
from robustperf.nets import weights_file
from robustperf.robustness import Margins
from robustperf.robustness import margins as margins_of
from robustperf.robustness.margin_run import MarginRun
from robustperf.training import ERM, CoTrain, CrossLipschitz, Objective, evaluate, fit

FOLDERS = {"no reg.": "none", "Hein": "hein", "co-training": "cotrain"}  # by method
DATA = ("mnist", "fashion-mnist", "cifar10", "svhn")
BATCH = 256


@dataclass(frozen=True)
class Scale(Settings):
    """The extent of T A.1's training and section 3.2's evaluation.

    Attributes:
        width: channels of the classifier's convolutions, 128 in the paper.
        hidden: width of its dense layer, 1024 in the paper.
        resnet: channels of ResNet20's first stage, for CIFAR-10, 16 in the paper.
        generator: channels of the generator's convolutions, 128 in the paper.
        epochs: 10 in the paper.
        cifar_epochs: 200 in the paper.
        samples: at most so many training images, a tenth of them for validation; None for all.
        tests: at most so many test images; None for all.
        points: at most so many test images whose margins are searched; None for all.
    """

    width: int
    hidden: int
    resnet: int
    generator: int
    epochs: int
    cifar_epochs: int
    samples: int | None
    tests: int | None
    points: int | None


SCALES = {
    "smoke": Scale(
        width=4, hidden=16, resnet=4, generator=4, epochs=2, cifar_epochs=2, samples=512, tests=256, points=32
    ),
    "cpu": Scale(
        width=8, hidden=64, resnet=8, generator=8, epochs=10, cifar_epochs=20, samples=6000, tests=None, points=100
    ),
    "full": Scale(
        width=128,
        hidden=1024,
        resnet=16,
        generator=128,
        epochs=10,
        cifar_epochs=200,
        samples=None,
        tests=None,
        points=None,
    ),
}


@dataclass(frozen=True)
class Generator:
    """How co-training trains its generator; the paper's by default.

    Attributes:
        width: channels of its convolutions; None for the scale's.
        steps: its updates after each of the classifier's.
        distance_weight: of the distance in its loss.
    """

    width: int | None = None
    steps: int = 1
    distance_weight: float = 1.0

    @property
    def suffix(self) -> str:
        """Of the names of its runs; empty for the paper's."""
        changed = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        return "".join(f"-{name}-{getattr(self, name):g}" for name in changed)


@dataclass(frozen=True)
class Trained:
    """A trained classifier.

    Attributes:
        model: in eval mode.
        weight: lambda; None without a regulariser.
        accuracy: on the test images, in percent.
        folder: of its run, with model.safetensors.
        generator: the one that was trained beside it, in eval mode; None except for co-training.
    """

    model: torch.nn.Module
    weight: float | None
    accuracy: float
    folder: Path
    generator: torch.nn.Module | None = None


def parser(description: str, choices: Sequence[str] = DATA, data: Sequence[str] = DATA) -> argparse.ArgumentParser:
    """The options of every benchmark on T section 3, on data sets of `choices`, by default `data`."""
    options = common.parser(description)
    options.add_argument(
        "--scale", choices=list(SCALES), default="cpu", help="cpu: minutes on two cores; full: the paper's"
    )
    options.add_argument("--data", nargs="+", default=list(data), choices=choices)
    common.add_data_root(options)
    options.add_argument(
        "--runs",
        type=Path,
        default=common.ROOT / "runs" / "tibo",
        help="folder of the trained models, which three benchmarks share; existing ones are not trained again",
    )
    options.add_argument(
        "--hein",
        type=float,
        default=1.0,
        metavar="LAMBDA",
        help="the first weight of Hein's regulariser to try, 1 or 3 times a power of ten",
    )
    options.add_argument(
        "--cotrain", type=float, default=30.0, metavar="LAMBDA", help="the first weight of co-training to try"
    )
    options.add_argument(
        "--generator-width", type=int, help="channels of co-training's generator; the scale's by default"
    )
    options.add_argument("--generator-steps", type=int, default=1, help="its updates after each of the classifier's")
    options.add_argument("--distance-weight", type=float, default=1.0, help="of the distance in its loss")
    options.add_argument(
        "--trials",
        nargs=2,
        type=int,
        default=[6, 6],
        metavar=("HEIN", "COTRAIN"),
        help="try at most so many weights of each method",
    )
    options.add_argument(
        "--within",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="search for the largest weight that costs at most so much accuracy",
    )
    options.add_argument("--pgd", choices=["2", "inf"], default="2", help="norm of PGD's ball; T does not say which")
    options.add_argument("--seed", type=int, default=0, help="of the initial weights, the batches and the subsets")
    return options


@dataclass(frozen=True)
class Comparison:
    """The methods on one data set.

    Attributes:
        name: of the data set.
        test: its test images.
        chosen: by method, the classifier of the chosen lambda.
        searches: by method with a lambda, all that were trained.
    """

    name: str
    test: Dataset
    chosen: dict[str, Trained]
    searches: dict[str, WeightSearch[Trained]]

    def edge(self, method: str) -> str | None:
        """Which end of the lambdas tried is the chosen one of `method`, if any."""
        return self.searches[method].edge if method in self.searches else None


def comparisons(arguments: argparse.Namespace) -> Iterator[Comparison]:
    """One for each data set that is in the folder. T section 3.3 takes the lambda whose accuracy on the test set is the
    closest to that without regularisation; here it is the largest on a grid whose accuracy is within `--within`
    points."""
    scale = SCALES[arguments.scale]
    for name in arguments.data:
        try:
            train, test = (load(name, split, arguments.data_root) for split in ("train", "test"))
        except FileNotFoundError as error:
            print(f"{name} is left out. {error}", file=sys.stderr)
            continue
        train, test = sample(train, scale.samples, arguments.seed), sample(test, scale.tests)
        print(f"{name}: {len(train)} training and {len(test)} test images", file=sys.stderr)
        folder = arguments.runs / arguments.scale / f"seed-{arguments.seed}" / name
        generator = Generator(arguments.generator_width, arguments.generator_steps, arguments.distance_weight)
        train_with = partial(
            trained, train=train, test=test, scale=scale, folder=folder, seed=arguments.seed, generator=generator
        )
        chosen = {"no reg.": train_with("no reg.", None)}
        least, searches = chosen["no reg."].accuracy - arguments.within, {}
        starts = {"Hein": arguments.hein, "co-training": arguments.cotrain}
        for (method, start), trials in zip(starts.items(), arguments.trials, strict=True):
            search = searches[method] = search_weight(partial(train_with, method), start, least, trials)
            chosen[method] = search.tried[search.chosen]
            edge = "" if search.edge is None else f": {search.edge}"
            print(f"{name}: {method}: lambda = {search.chosen:g} is chosen{edge}", file=sys.stderr)
        yield Comparison(name, test, chosen, searches)


def trained(
    method: str,
    weight: float | None,
    train: Dataset,
    test: Dataset,
    scale: Scale,
    folder: Path,
    seed: int,
    generator: Generator = Generator(),
) -> Trained:
    """The classifier of T A.1 after T A.1's training (Adam, batches of 32, the best epoch on a held-out tenth), loaded
    from `folder` where it was trained before."""
    name = FOLDERS[method] + (generator.suffix if method == "co-training" else "")
    folder = folder / (name if weight is None else f"{name}-{weight:g}")
    began = time.perf_counter()
    torch.manual_seed(seed)
    model, epochs, rates = classifier(train, scale)
    aim = objective(method, weight, model, train, scale, generator)
    fit(
        model,
        aim,
        train,
        validation=0.1,
        epochs=epochs,
        batch_size=32,
        optimizer="adam",
        lr=rates,
        seed=seed,
        out=folder,
        resume=True,
        progress=False,
    )
    accuracy = 100 * evaluate(model, test).top(1)
    print(f"{folder}: accuracy {accuracy:.2f} % ({time.perf_counter() - began:.0f} s)", file=sys.stderr)
    return Trained(model.eval(), weight, accuracy, folder, aim.generator.eval() if method == "co-training" else None)


def classifier(train: Dataset, scale: Scale) -> tuple[torch.nn.Module, int, dict[int, float]]:
    """(T A.1's network, epochs, {epoch: learning rate from then on}) for this data set."""
    channels, size = train.x.shape[1:3]
    if train.name == "cifar10":
        epochs, rates = scale.cifar_epochs, {0: 1e-3, 0.4: 1e-4, 0.6: 1e-5, 0.8: 0.5e-6}
        model = nets.build("resnet20", in_channels=channels, classes=train.classes, width=scale.resnet)
    else:
        epochs, rates = scale.epochs, {0: 1e-3, 0.5: 1e-4}
        model = nets.build(
            "tibo-cnn", in_channels=channels, size=size, classes=train.classes, width=scale.width, hidden=scale.hidden
        )
    return model, epochs, {round(fraction * epochs): rate for fraction, rate in rates.items()}


def objective(
    method: str, weight: float | None, model: torch.nn.Module, train: Dataset, scale: Scale, generator: Generator
) -> Objective:
    """The training objective of a method with lambda = `weight`."""
    if method == "no reg.":
        return ERM()
    if method == "Hein":
        return CrossLipschitz(weight)
    return CoTrain(
        model,
        nets.TiboGenerator(train.x.shape[1], width=generator.width or scale.generator),
        weight,
        generator_steps=generator.steps,
        distance_weight=generator.distance_weight,
    )


PRESETS = ("tibo", "strong")
"""T's three attacks as published, and today's."""


def margins(trained: Trained, test: Dataset, arguments: argparse.Namespace, preset: str = "tibo") -> Margins:
    """Margins of the test images, or of a sample, in the L2 norm from the model's own labels, over FGSM, PGD and BG (T
    section 3.2) or over another preset's attacks. They are kept in the model's folder and searched once."""
    points = sample(test, SCALES[arguments.scale].points)
    folder, attacks = f"margins-{preset}", attacks_of(preset, 2)
    if preset == "tibo":
        loss = "cross_entropy"  # as published
        folder = f"margins-pgd-{arguments.pgd}"
        attacks = [FGSM(loss=loss), PGD(norm=float(arguments.pgd), loss=loss), BG(norm=2)]
    run = MarginRun(trained.folder / folder, {
        "checkpoint": weights_file.digest(trained.folder / "model.safetensors"), "points": len(points),
        "attacks": [repr(attack) for attack in attacks],
    }, resume=True)  # fmt: skip
    device = next(trained.model.parameters()).device
    starts = range(0, len(points), BATCH)
    for start in starts:
        if not run.done(start):
            index = torch.arange(start, min(start + BATCH, len(points)))
            run.keep(
                start,
                margins_of(trained.model, points.x[index].to(device), attacks=attacks, norm=2, index=index.to(device)),
            )
    return run.collect(starts)
