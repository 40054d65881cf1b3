"""What the benchmarks on T section 4 share: scales, classifiers, auto-encoders, accuracies under MNIST-C, tables.

T trains PLAIN and GAUSS classifiers on MNIST, an NN and an SVM (appendix B), and auto-encoders on N_o = 60k - 15 N_c
clean images and N_c images of each corruption: SEPARATE a pair for each corruption, JOINT one pair for all. No original
of a shifted image is among the clean images. For N_c = 30k, N_o would be negative: here half of the images are clean,
and every corruption is applied to the other half ("half" below).

Normalisation is for each image by itself. With "minmax", images are scaled to [0, 1] before they reach anything; with
"standard", the classifiers standardise what they get as well (the auto-encoders, whose outputs lie in [0, 1], see
min-max images). T does not say that it normalises, but no SVM reaches its accuracy under brightness otherwise.

T's averages count identity, MNIST itself, as a sixteenth set: so the averages of Table 4 agree with the 86.3 % of the
text.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch
from sklearn.svm import SVC
from torch import nn

from benchmarks.common import options as common
from benchmarks.common.report import Report
from benchmarks.common.settings import Settings
from benchmarks.paper.tibo_mnist_c import PAPER, PAPER_COLUMNS, PLAIN_SVM
from robustperf import random
from robustperf.classifier import evaluating
from robustperf.data import Dataset, load, normalise
from robustperf.files import atomic_write, record_settings
from robustperf.names import NORMALISATIONS
from robustperf.nets import TiboTransferCNN
from robustperf.nuisance import mnist_c
from robustperf.training import ERM, GaussianAugmentation, fit
from robustperf.transfer import PairedAutoencoder, SVMModule, split_originals

SETS = (
    "brightness",
    "canny_edges",
    "dotted_line",
    "fog",
    "glass_blur",
    "identity",
    "impulse_noise",
    "motion_blur",
    "rotate",
    "scale",
    "shear",
    "shot_noise",
    "spatter",
    "stripe",
    "translate",
    "zigzag",
)  # in the tables' order
CORRUPTIONS = tuple(name for name in SETS if name != "identity")
HALF = "half"
METHODS = ("PLAIN", "GAUSS", "TRANSFER", "SEPARATE", "JOINT")
SELECTIONS = ("methods", "normalise")  # options that have a report, or rows, of their own
SIGMA = 0.1  # of GAUSS

Labels = Callable[[torch.Tensor], torch.Tensor]
"""The labels [N] of images [N, 1, 28, 28]."""


@dataclass(frozen=True)
class Scale(Settings):
    """The extent of T section 4.

    Attributes:
        images: training images, 60,000 in the paper.
        tests: test images, 10,000 in the paper.
        shifted: values of N_c other than 0; "half" is the paper's 30k.
        epochs: of the auto-encoders, 100 in the paper.
        classifier_epochs: of the NN, 50 in the paper.
        width, hidden: of the auto-encoders, 32 and 2048 in the paper.
        seeds: number of trials, 5 in the paper.
    """

    images: int
    tests: int
    shifted: tuple[int | str, ...]
    epochs: int
    classifier_epochs: int
    width: int
    hidden: int
    seeds: int


SCALES = {
    "smoke": Scale(96, 64, (2, HALF), 1, 1, 4, 32, 1),
    "cpu": Scale(16_000, 4000, (128, HALF), 24, 10, 16, 512, 1),
    "full": Scale(60_000, 10_000, (128, 1024, HALF), 100, 50, 32, 2048, 5),
}


def parser(description: str) -> argparse.ArgumentParser:
    """The options of every benchmark on T section 4."""
    options = common.parser(description)
    options.add_argument(
        "--scale", choices=SCALES, default="cpu", help="cpu: about three hours on two cores; full: the paper's"
    )
    common.add_data_root(options)
    options.add_argument(
        "--runs",
        type=Path,
        help="folder that keeps each accuracy: a run that was stopped resumes from it, and "
        "the three tables share it; runs/tibo-transfer/SCALE by default, with -minmax or -standard after it",
    )
    options.add_argument("--normalise", choices=NORMALISATIONS, default="none", help="how each image is normalised")
    options.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    return options


def report(name: str, title: str, arguments: argparse.Namespace) -> Report:
    """The report of a table; a normalisation has one of its own, named after it."""
    suffix, how = ("", "") if arguments.normalise == "none" else (f"_{arguments.normalise}", f"{arguments.normalise}, ")
    return Report(name + suffix, f"{title}, {how}{SCALES[arguments.scale]}", arguments.output)


# data


def corrupted(dataset: Dataset, name: str, rows: torch.Tensor, key: int) -> torch.Tensor:
    """These rows of a data set under a corruption."""
    return mnist_c(name).draw(dataset.x[rows], key=key, index=rows)[0]


def split(scale: Scale, count: int | str, seed: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(rows of the clean images, rows of the shifted images by set)"""
    if count == HALF:
        found = split_originals(scale.images, SETS, None, seed=seed)
        return found.clean, found.shifted
    found = split_originals(scale.images, CORRUPTIONS, count, seed=seed)
    if not count:
        return found.clean, {}
    return found.clean, found.shifted | {"identity": found.shifted[CORRUPTIONS[0]]}


# the two classifiers


class Standardise(nn.Module):
    """Images [B, C, H, W] standardised one by one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return normalise(x, "standard")


def nn_labels(train: Dataset, gauss: bool, scale: Scale, seed: int, standardise: bool) -> Labels:
    """Appendix B's network and training."""
    torch.manual_seed(seed)
    model = nn.Sequential(*[Standardise()] * standardise, TiboTransferCNN())
    fit(
        model,
        GaussianAugmentation(SIGMA) if gauss else ERM(),
        train,
        validation=0.1,
        epochs=scale.classifier_epochs,
        batch_size=32,
        optimizer="adam",
        lr=1e-3,
        seed=seed,
        progress=False,
    )

    @torch.no_grad()
    def labels(x: torch.Tensor) -> torch.Tensor:
        device = next(model.parameters()).device
        with evaluating(model):
            return torch.cat([model(part.to(device)).argmax(1).cpu() for part in x.split(256)])

    return labels


def svm_labels(train: Dataset, gauss: bool, scale: Scale, seed: int, standardise: bool) -> Labels:
    """SVC(gamma=0.05, C=5), which predicts as an SVMModule."""
    x, y = train.x, train.y
    if gauss:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        x, y = torch.cat([x, (x + SIGMA * noise).clamp(0, 1)]), torch.cat([y, y])
    pixels = Standardise() if standardise else nn.Identity()
    svc = SVC(gamma=0.05, C=5, cache_size=1000).fit(pixels(x).flatten(1).numpy(), y.numpy())
    module = SVMModule.from_sklearn(svc)
    return lambda x: torch.as_tensor(module.predict(pixels(x)))


CLASSIFIERS = {"NN": nn_labels, "SVM": svm_labels}


# the evaluation


def column(method: str, count: int | str) -> str:
    return f"{method} {count}"


def columns(scale: Scale, methods: Iterable[str] = METHODS) -> list[str]:
    """The columns of the tables."""
    every = [
        "PLAIN",
        "GAUSS",
        column("TRANSFER", 0),
        *(column(method, count) for method in ("SEPARATE", "JOINT") for count in scale.shifted),
    ]
    return [name for name in every if name.partition(" ")[0] in methods]


class Evaluation:
    """Accuracies in percent by classifier, column, set and seed, each computed once and kept in a file."""

    def __init__(self, arguments: argparse.Namespace):
        self.scale, self.normalise = SCALES[arguments.scale], arguments.normalise
        self.columns = columns(self.scale, arguments.methods)
        suffix, how = ("", None) if self.normalise == "none" else (f"-{self.normalise}", self.normalise)
        folder = arguments.runs or common.ROOT / "runs" / "tibo-transfer" / f"{arguments.scale}{suffix}"
        record_settings(folder, {"scale": asdict(self.scale), "normalise": how}, resume=True)
        self.file = folder / "accuracies.json"
        self.found = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.originals = load("mnist", "train", arguments.data_root).limit(self.scale.images)
        self.train = replace(self.originals, x=self._scaled(self.originals.x))
        self.test = load("mnist", "test", arguments.data_root).limit(self.scale.tests)
        self.test_images = cache(self._test_images)
        self.labels = cache(self._labels)

    def run(self, classifiers: list[str]) -> dict[str, dict[str, dict[str, list[float]]]]:
        """{classifier: {column: {set: accuracies by seed}}}"""
        for seed in range(self.scale.seeds):
            for name, sets, transfer in self._columns(seed):
                if name not in self.columns:
                    continue
                missing = [
                    kind
                    for kind in classifiers
                    if any(self._key(kind, name, each, seed) not in self.found for each in sets)
                ]
                if missing:
                    self._evaluate(missing, name, sets, seed, transfer)
            self.labels.cache_clear()
        return {
            kind: {
                name: {
                    each: [self.found[self._key(kind, name, each, seed)] for seed in range(self.scale.seeds)]
                    for each in SETS
                }
                for name in self.columns
            }
            for kind in classifiers
        }

    def _columns(self, seed: int) -> Iterator[tuple[str, tuple[str, ...], Callable[[], PairedAutoencoder] | None]]:
        """(column, its test sets, a function that trains its auto-encoder or None), of one seed."""
        train = partial(self._autoencoder, seed)
        yield "PLAIN", SETS, None
        yield "GAUSS", SETS, None
        yield column("TRANSFER", 0), SETS, partial(train, 0, ())
        for count in self.scale.shifted:
            yield column("JOINT", count), SETS, partial(train, count, CORRUPTIONS)
            for name in SETS:
                yield column("SEPARATE", count), (name,), partial(train, count, (name,))

    def _evaluate(self, classifiers, name: str, sets, seed: int, transfer) -> None:
        began = time.perf_counter()
        autoencoder = transfer and transfer()
        for each in sets:
            x = self.test_images(each) if autoencoder is None else autoencoder.transfer(self.test_images(each))
            for kind in classifiers:
                correct = self.labels(kind, name == "GAUSS", seed)(x) == self.test.y
                self.found[self._key(kind, name, each, seed)] = 100 * correct.double().mean().item()
        with atomic_write(self.file) as partial_file:
            partial_file.write_text(json.dumps(self.found, indent=1) + "\n")
        tested = "all sets" if len(sets) > 1 else sets[0]
        print(f"seed {seed}: {name}, {tested} ({time.perf_counter() - began:.0f} s)", file=sys.stderr, flush=True)

    def _autoencoder(self, seed: int, count: int | str, names: tuple[str, ...]) -> PairedAutoencoder:
        clean, originals = split(self.scale, count, seed)
        key = random.fold_in(random.key(seed), 1)
        shifted = [
            self._scaled(corrupted(self.originals, name, originals[name], random.fold_in(key, SETS.index(name))))
            for name in names
        ]
        torch.manual_seed(seed)
        model = PairedAutoencoder(width=self.scale.width, hidden=self.scale.hidden)
        model.fit(
            self.train.x[clean],
            torch.cat(shifted) if shifted else None,
            epochs=self.scale.epochs,
            seed=seed,
            progress=False,
        )
        return model

    def _labels(self, kind: str, gauss: bool, seed: int) -> Labels:
        return CLASSIFIERS[kind](self.train, gauss, self.scale, seed, self.normalise == "standard")

    def _test_images(self, name: str) -> torch.Tensor:
        """The test images under a corruption, the same for every column."""
        return self._scaled(corrupted(self.test, name, torch.arange(len(self.test)), random.fold_in(random.key(0), 2)))

    def _scaled(self, x: torch.Tensor) -> torch.Tensor:
        """Images as the auto-encoders and the classifiers get them."""
        return x if self.normalise == "none" else normalise(x, "minmax")

    @staticmethod
    def _key(kind: str, name: str, each: str, seed: int) -> str:
        return f"{kind}, {name}, {each}, seed {seed}"


# the tables


def cell(values: list[float], paper: float | None) -> str:
    """Mean, standard deviation and, in brackets, the paper's mean."""
    spread = f"±{statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}" + ("" if paper is None else f" ({paper:.1f})")


def averages(of_sets: dict[str, list[float]], sets: Iterable[str] = SETS) -> list[float]:
    """The average over these sets, by default all sixteen, for each seed."""
    return [statistics.mean(values) for values in zip(*(of_sets[each] for each in sets), strict=True)]


def paper_of(kind: str, name: str, each: str | None = None) -> float | None:
    """The paper's figure of a set, or its average over the sixteen sets; None where the paper has none."""
    if name not in PAPER_COLUMNS:
        return None
    place = PAPER_COLUMNS.index(name)
    if each is None:
        figures = [row[place] for row in PAPER[kind].values()]
        return PLAIN_SVM if None in figures else statistics.mean(figures)
    return PAPER[kind][each][place]


def paper_corrupted(kind: str, name: str) -> float | None:
    """The paper's average over the fifteen corruptions, from those of the sixteen sets and of identity."""
    average, clean = paper_of(kind, name), paper_of(kind, name, "identity")
    return None if average is None else (len(SETS) * average - clean) / len(CORRUPTIONS)


def by_set(name: str, kind: str, number: int, description: str) -> None:
    """Runs Table 4 or 5, which has a row for each set."""
    arguments = common.parse(parser(description), selections=SELECTIONS)
    found = Evaluation(arguments).run([kind])[kind]
    table = report(name, f"T Table {number}, {kind}, accuracy in % (the paper's)", arguments)
    for each in SETS:
        table.add(
            set=each, **{column: cell(values[each], paper_of(kind, column, each)) for column, values in found.items()}
        )
    table.add(
        set="average", **{column: cell(averages(values), paper_of(kind, column)) for column, values in found.items()}
    )
    table.show()
