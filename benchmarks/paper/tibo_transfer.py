"""What the benchmarks on T section 4 share: scales, classifiers, auto-encoders, accuracies under MNIST-C, tables.

T trains PLAIN and GAUSS classifiers on MNIST, an NN and an SVM (appendix B), and auto-encoders on N_o = 60k - 15 N_c
clean images and N_c of each corruption: SEPARATE a pair for each corruption, JOINT one for all. No shifted image's
original is among the clean ones. For N_c = 30k that is no longer possible as printed, N_o being negative: here half of
the images are clean, and the other half's originals serve for every corruption ("half" below).

T's averages count identity, MNIST itself, as a sixteenth set: those of Table 4 give the 86.3 % of the text that way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import torch
from sklearn.svm import SVC
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import Report

from robustperf import random
from robustperf.classifier import evaluating
from robustperf.data import Dataset, load
from robustperf.files import note_settings, written_whole
from robustperf.nets import Dropout
from robustperf.nuisance import mnist_c
from robustperf.training import ERM, GaussianAugmentation, fit
from robustperf.transfer import PairedAutoencoder, SVMModule

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
SIGMA = 0.1  # of GAUSS

Labels = Callable[[torch.Tensor], torch.Tensor]
"""The labels [N] of images [N, 1, 28, 28]."""


@dataclass(frozen=True)
class Scale:
    """How much of T section 4 is done.

    Attributes:
        images: training images, 60,000 in the paper.
        tests: test images, 10,000 in the paper.
        shifted: N_c beside 0; "half" is the paper's 30k.
        epochs: of the auto-encoders, 100 in the paper.
        classifier_epochs: of the NN, 50 in the paper.
        width, hidden: of the auto-encoders, 32 and 2048 in the paper.
        seeds: trials, 5 in the paper.
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
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument(
        "--scale", choices=SCALES, default="cpu", help="cpu: about three hours on two cores; full: the paper's"
    )
    options.add_argument("--data-root", type=Path, help="folder of the data sets; ROBUSTPERF_DATA by default")
    options.add_argument("--out", type=Path, help="folder for the JSON, the table and the picture")
    options.add_argument(
        "--runs",
        type=Path,
        help="folder for the accuracies as they are found: a run that was "
        "stopped goes on there, and the three tables share it; runs/tibo-transfer/SCALE by default",
    )
    return options


# data


def images_of(dataset: Dataset, name: str, rows: torch.Tensor, key: int) -> torch.Tensor:
    """The images of these numbers under a corruption."""
    return mnist_c(name).draw(dataset.x[rows], key=key, index=rows)[0]


def split(scale: Scale, count: int | str, seed: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(numbers of the clean images, for each set those of the originals whose shifted images are seen)."""
    order = torch.randperm(scale.images, generator=torch.Generator().manual_seed(seed))
    if count == HALF:
        clean, rest = order[: scale.images // 2], order[scale.images // 2 :]
        return clean, {name: rest for name in SETS}
    first = scale.images - len(CORRUPTIONS) * count
    if first < 0:
        raise ValueError(
            f"count: expected at most {scale.images // len(CORRUPTIONS)} images of each corruption, of "
            f"{scale.images} in all, got {count}"
        )
    parts = dict(zip(CORRUPTIONS, order[first:].split(count), strict=False)) if count else {}
    return order[:first], parts | {"identity": order[first : first + count]}


# the two classifiers


def nn_labels(train: Dataset, gauss: bool, scale: Scale, seed: int) -> Labels:
    """Appendix B's network, trained as there."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), Dropout(0.25), nn.Flatten(),
        nn.Linear(64 * 12 * 12, 128), nn.ReLU(), Dropout(0.5), nn.Linear(128, 10),
    )  # fmt: skip
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


def svm_labels(train: Dataset, gauss: bool, scale: Scale, seed: int) -> Labels:
    """SVC(gamma=0.05, C=5), and its fast form for the labels."""
    x, y = train.x, train.y
    if gauss:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        x, y = torch.cat([x, (x + SIGMA * noise).clamp(0, 1)]), torch.cat([y, y])
    svc = SVC(gamma=0.05, C=5, cache_size=1000).fit(x.flatten(1).numpy(), y.numpy())
    module = SVMModule.from_sklearn(svc)
    return lambda x: torch.as_tensor(module.predict(x))


CLASSIFIERS = {"NN": nn_labels, "SVM": svm_labels}


# the evaluation


def column(method: str, count: int | str) -> str:
    return f"{method} {count}"


def columns(scale: Scale) -> list[str]:
    """The tables' columns."""
    return [
        "PLAIN",
        "GAUSS",
        column("TRANSFER", 0),
        *(column(method, count) for method in ("SEPARATE", "JOINT") for count in scale.shifted),
    ]


class Evaluation:
    """Accuracies in per cent by classifier, column, set and seed, each found once and kept in a file."""

    def __init__(self, arguments: argparse.Namespace):
        self.scale = SCALES[arguments.scale]
        folder = arguments.runs or Path(__file__).parents[2] / "runs" / "tibo-transfer" / arguments.scale
        note_settings(folder, {"scale": asdict(self.scale)}, resume=True)
        self.file = folder / "accuracies.json"
        self.found = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.train = load("mnist", "train", arguments.data_root).limit(self.scale.images)
        self.test = load("mnist", "test", arguments.data_root).limit(self.scale.tests)
        self.tested = cache(self._tested)
        self.labels = cache(self._labels)

    def run(self, classifiers: list[str]) -> dict[str, dict[str, dict[str, list[float]]]]:
        """{classifier: {column: {set: an accuracy for each seed}}}"""
        for seed in range(self.scale.seeds):
            for name, sets, transfer in self._columns(seed):
                lacking = [
                    kind
                    for kind in classifiers
                    if any(self._key(kind, name, each, seed) not in self.found for each in sets)
                ]
                if lacking:
                    self._evaluate(lacking, name, sets, seed, transfer)
            self.labels.cache_clear()
        return {
            kind: {
                name: {
                    each: [self.found[self._key(kind, name, each, seed)] for seed in range(self.scale.seeds)]
                    for each in SETS
                }
                for name in columns(self.scale)
            }
            for kind in classifiers
        }

    def _columns(self, seed: int) -> Iterator[tuple[str, tuple[str, ...], Callable[[], PairedAutoencoder] | None]]:
        """(column, sets to test on, what makes its auto-encoder), of one seed."""
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
            x = self.tested(each) if autoencoder is None else autoencoder.transfer(self.tested(each))
            for kind in classifiers:
                right = self.labels(kind, name == "GAUSS", seed)(x) == self.test.y
                self.found[self._key(kind, name, each, seed)] = 100 * right.double().mean().item()
        with written_whole(self.file) as partial_file:
            partial_file.write_text(json.dumps(self.found, indent=1) + "\n")
        over = "all sets" if len(sets) > 1 else sets[0]
        print(f"seed {seed}: {name}, {over} ({time.perf_counter() - began:.0f} s)", file=sys.stderr, flush=True)

    def _autoencoder(self, seed: int, count: int | str, names: tuple[str, ...]) -> PairedAutoencoder:
        clean, originals = split(self.scale, count, seed)
        key = random.fold_in(random.key(seed), 1)
        shifted = [
            images_of(self.train, name, originals[name], random.fold_in(key, SETS.index(name))) for name in names
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
        return CLASSIFIERS[kind](self.train, gauss, self.scale, seed)

    def _tested(self, name: str) -> torch.Tensor:
        """The test images under a corruption, the same for all."""
        return images_of(self.test, name, torch.arange(len(self.test)), random.fold_in(random.key(0), 2))

    @staticmethod
    def _key(kind: str, name: str, each: str, seed: int) -> str:
        return f"{kind}, {name}, {each}, seed {seed}"


# the tables


def cell(values: list[float], paper: float | None) -> str:
    """Mean, deviation and, in brackets, the paper's mean."""
    spread = f"±{statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}" + ("" if paper is None else f" ({paper:.1f})")


def averages(of_sets: dict[str, list[float]], sets: Iterable[str] = SETS) -> list[float]:
    """The average over these sets, all sixteen by default, for each seed."""
    return [statistics.mean(values) for values in zip(*(of_sets[each] for each in sets), strict=True)]


def paper_of(kind: str, name: str, each: str | None = None) -> float | None:
    """The paper's figure; its average over the sixteen sets without `each`."""
    if name not in PAPER_COLUMNS:
        return None
    place = PAPER_COLUMNS.index(name)
    if each is None:
        figures = [row[place] for row in PAPER[kind].values()]
        return PLAIN_SVM if None in figures else statistics.mean(figures)
    return PAPER[kind][each][place]


def paper_corrupted(kind: str, name: str) -> float | None:
    """The paper's average over the fifteen corruptions, from that over the sixteen sets and identity's."""
    average, clean = paper_of(kind, name), paper_of(kind, name, "identity")
    return None if average is None else (len(SETS) * average - clean) / len(CORRUPTIONS)


def by_set(name: str, kind: str, number: int, description: str) -> None:
    """Table 4 or 5: a row for each set."""
    arguments = parser(description).parse_args()
    evaluation = Evaluation(arguments)
    found = evaluation.run([kind])[kind]
    report = Report(name, f"T Table {number}, {kind}, accuracy in % (the paper's), {evaluation.scale}", arguments.out)
    for each in SETS:
        report.add(
            set=each, **{column: cell(values[each], paper_of(kind, column, each)) for column, values in found.items()}
        )
    report.add(
        set="average", **{column: cell(averages(values), paper_of(kind, column)) for column, values in found.items()}
    )
    report.show()


PLAIN_SVM = 69.7  # the average: T prints that in place of the figures, and the clean one in Table 2
PAPER_COLUMNS = (
    "PLAIN",
    "GAUSS",
    "TRANSFER 0",
    "SEPARATE 128",
    "SEPARATE 1024",
    "SEPARATE half",
    "JOINT 128",
    "JOINT 1024",
    "JOINT half",
)
PAPER = {
    "NN": {
        "brightness": (98.8, 75.1, 98.8, 98.6, 98.6, 98.9, 98.7, 98.9, 98.9),
        "canny_edges": (81.2, 79.9, 81.5, 81.1, 81.7, 81.8, 81.5, 81.8, 81.5),
        "dotted_line": (97.2, 98.3, 97.0, 97.3, 97.4, 98.4, 93.4, 95.3, 98.7),
        "fog": (93.9, 64.6, 93.9, 93.0, 97.3, 98.9, 86.4, 95.2, 95.3),
        "glass_blur": (89.7, 92.8, 89.8, 92.2, 93.9, 93.4, 92.9, 92.6, 92.3),
        "identity": (99.1, 99.3, 99.1, 99.0, 99.0, 99.1, 99.0, 99.1, 99.1),
        "impulse_noise": (88.6, 93.4, 88.8, 84.7, 90.4, 93.8, 71.4, 92.4, 93.4),
        "motion_blur": (84.7, 95.8, 84.6, 82.3, 91.2, 96.0, 91.9, 93.8, 93.2),
        "rotate": (90.7, 92.1, 90.7, 90.1, 91.1, 91.9, 90.5, 91.0, 92.1),
        "scale": (91.5, 94.3, 91.5, 87.4, 87.6, 94.4, 90.9, 92.7, 94.1),
        "shear": (97.1, 98.0, 97.1, 95.6, 96.3, 96.9, 96.8, 97.4, 97.5),
        "shot_noise": (97.6, 97.7, 97.6, 91.6, 97.3, 97.3, 97.7, 97.8, 97.8),
        "spatter": (96.8, 98.4, 96.8, 94.7, 95.1, 97.2, 96.8, 96.9, 96.9),
        "stripe": (33.8, 95.6, 33.3, 78.1, 90.8, 93.5, 85.2, 93.6, 93.9),
        "translate": (52.6, 51.8, 52.5, 56.8, 56.5, 56.3, 56.2, 56.8, 53.1),
        "zigzag": (87.6, 89.5, 87.6, 92.9, 92.7, 96.2, 86.8, 88.4, 95.5),
    },
    "SVM": {
        "brightness": (None, 97.7, 98.1, 98.0, 97.9, 98.2, 98.1, 98.1, 98.1),
        "canny_edges": (None, 34.4, 60.4, 44.3, 72.5, 70.3, 58.5, 62.7, 61.5),
        "dotted_line": (None, 97.0, 97.2, 94.1, 95.2, 98.0, 95.5, 96.1, 96.5),
        "fog": (None, 58.8, 94.2, 92.4, 96.8, 98.2, 84.6, 91.6, 91.1),
        "glass_blur": (None, 93.8, 90.7, 94.0, 95.0, 96.2, 94.7, 95.6, 95.5),
        "identity": (98.4, 97.9, 98.3, 98.3, 98.2, 98.3, 98.2, 98.3, 98.3),
        "impulse_noise": (None, 25.4, 92.6, 63.7, 89.3, 94.0, 73.9, 91.9, 93.4),
        "motion_blur": (None, 85.8, 84.7, 83.0, 89.3, 93.4, 87.3, 88.0, 88.1),
        "rotate": (None, 86.9, 88.2, 87.7, 87.3, 88.2, 88.1, 88.5, 88.5),
        "scale": (None, 51.1, 64.1, 63.5, 65.2, 67.6, 63.7, 64.4, 64.0),
        "shear": (None, 93.8, 94.8, 93.3, 92.4, 94.5, 94.7, 95.0, 95.0),
        "shot_noise": (None, 97.1, 97.1, 95.4, 96.6, 97.7, 97.2, 97.5, 97.5),
        "spatter": (None, 96.7, 96.1, 94.7, 95.3, 96.9, 96.6, 96.8, 96.7),
        "stripe": (None, 10.3, 22.4, 77.9, 92.1, 94.5, 88.4, 94.6, 94.8),
        "translate": (None, 21.6, 23.5, 22.5, 21.3, 21.0, 23.3, 23.2, 22.9),
        "zigzag": (None, 80.8, 89.1, 93.3, 94.2, 97.2, 87.5, 84.8, 84.2),
    },
}
