"""What the benchmarks on T section 3 (Tibo et al. 2021) share: scales, training by three methods, the choice of lambda,
margins."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.common import options as common
from benchmarks.common.settings import Settings
from benchmarks.paper.robey import sample
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
        width=8, hidden=64, resnet=8, generator=8, epochs=10, cifar_epochs=20, samples=6000, tests=None, points=1000
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
class Trained:
    """A trained classifier.

    Attributes:
        model: in eval mode.
        weight: lambda; None without a regulariser.
        accuracy: on the test images, in percent.
        folder: of its run, with model.safetensors.
    """

    model: torch.nn.Module
    weight: float | None
    accuracy: float
    folder: Path


def parser(description: str) -> argparse.ArgumentParser:
    """The options of every benchmark on T section 3."""
    options = common.parser(description)
    options.add_argument(
        "--scale", choices=list(SCALES), default="cpu", help="cpu: minutes on two cores; full: the paper's"
    )
    options.add_argument("--data", nargs="+", default=list(DATA), choices=DATA)
    common.add_data_root(options)
    options.add_argument(
        "--runs",
        type=Path,
        default=common.ROOT / "runs" / "tibo",
        help="folder of the trained models, which three benchmarks share; existing ones are not trained again",
    )
    options.add_argument(
        "--hein",
        nargs="+",
        type=float,
        default=[0.01, 0.03, 0.1],
        metavar="LAMBDA",
        help="weights of Hein's regulariser; the largest is tried first",
    )
    options.add_argument(
        "--cotrain",
        nargs="+",
        type=float,
        default=[1.0, 3.0, 10.0, 30.0],
        metavar="LAMBDA",
        help="weights of co-training; the largest is tried first",
    )
    options.add_argument(
        "--within",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="choose the first weight that costs at most so much accuracy",
    )
    options.add_argument("--pgd", choices=["2", "inf"], default="2", help="norm of PGD's ball; T does not say which")
    options.add_argument("--seed", type=int, default=0, help="of the initial weights, the batches and the subsets")
    return options


def chosen_models(arguments: argparse.Namespace) -> Iterator[tuple[str, Dataset, dict[str, Trained]]]:
    """(name, test images, the three classifiers by method), for each data set that is in the folder."""
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
        found = {"no reg.": trained("no reg.", None, train, test, scale, folder, arguments.seed)}
        least = found["no reg."].accuracy - arguments.within
        for method, weights in (("Hein", arguments.hein), ("co-training", arguments.cotrain)):
            models = (
                trained(method, weight, train, test, scale, folder, arguments.seed)
                for weight in sorted(weights, reverse=True)
            )
            found[method] = choice(models, least)
            largest = found[method].weight == max(weights) and found[method].accuracy >= least
            print(
                f"{name}: {method}: lambda = {found[method].weight:g} is chosen"
                + ", the largest weight tried: larger ones may keep the accuracy too" * largest,
                file=sys.stderr,
            )
        yield name, test, found


def choice(models: Iterable[Trained], least: float) -> Trained:
    """The first model, from the largest lambda on, whose accuracy is at least `least`; otherwise the most accurate. T
    section 3.3 takes the one whose accuracy on the test set is the closest."""
    rejected = []
    for model in models:
        if model.accuracy >= least:
            return model
        rejected.append(model)
    return max(rejected, key=lambda model: model.accuracy)


def trained(
    method: str, weight: float | None, train: Dataset, test: Dataset, scale: Scale, folder: Path, seed: int
) -> Trained:
    """The classifier of T A.1 after T A.1's training (Adam, batches of 32, the best epoch on a held-out tenth), loaded
    from `folder` where it was trained before."""
    folder = folder / (FOLDERS[method] if weight is None else f"{FOLDERS[method]}-{weight:g}")
    began = time.perf_counter()
    torch.manual_seed(seed)
    model, epochs, rates = classifier(train, scale)
    fit(
        model,
        objective(method, weight, model, train, scale),
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
    return Trained(model.eval(), weight, accuracy, folder)


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


def objective(method: str, weight: float | None, model: torch.nn.Module, train: Dataset, scale: Scale) -> Objective:
    """The training objective of a method with lambda = `weight`."""
    if method == "no reg.":
        return ERM()
    if method == "Hein":
        return CrossLipschitz(weight)
    return CoTrain(model, nets.TiboGenerator(train.x.shape[1], width=scale.generator), weight=weight)


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
