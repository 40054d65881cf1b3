"""Learned models of natural variation: how well G(A, delta) resembles B, keeps the label and varies with delta.

    python -m benchmarks.paper.robey_kernels [--cases gtsrb mnist] [--share all ...] [--settings cycle=0 width=32 ...]

GTSRB from low to high brightness, and MNIST from blue to red backgrounds, with the library's defaults at 2,500 and 250
iterations. The figures are those of test images. The labels come from an oracle: R A.2's network with batch
normalisation, trained on both domains with labels. Its accuracy on A and B stands beside the label kept, which it
bounds. Kernels and oracles in the folder --runs are not trained again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.machine import slug
from benchmarks.common.options import ROOT, add_data_root, parse, parser
from benchmarks.common.report import Report
from benchmarks.paper.robey_data import on_background
from robustperf import nets, nuisance
from robustperf.data import Dataset, domain, load
from robustperf.files import atomic_write
from robustperf.names import SHARES
from robustperf.nets import weights_file
from robustperf.nuisance import BackgroundColour
from robustperf.nuisance.learned.kernel import FILE
from robustperf.training import ERM, evaluate, fit

BLUES = BackgroundColour((0.0, 0.0, 0.5), (0.3, 0.3, 1.0), "corner")
TESTS = 1000  # images of each domain
ORACLE = {"optimizer": "adam", "lr": (2e-3, 1e-4), "validation": None}


@dataclass(frozen=True)
class Case:
    """Two domains with their test images.

    Attributes:
        epochs: of the oracle.
        width: of the oracle.
        settings: of `learn`, beside its defaults.
    """

    a: Dataset
    b: Dataset
    test_a: Dataset
    test_b: Dataset
    epochs: int
    width: int
    settings: dict[str, Any]


def gtsrb(root: Path | None) -> Case:
    """Traffic signs of low and of high brightness."""
    train, test = load("gtsrb", "train", root), load("gtsrb", "test", root)
    a, b, test_a, test_b = (domain(of, f"brightness:{level}") for of in (train, test) for level in ("low", "high"))
    return Case(a, b, test_a, test_b, epochs=15, width=16, settings={"iterations": 2500})


def mnist(root: Path | None) -> Case:
    """Digits on blue and on red; no image of A has its original in B."""
    train, test = load("mnist", "train", root).limit(6000).resized(32), load("mnist", "test", root).resized(32)
    train, test = train.rgb(), test.rgb()
    half, reds = len(train) // 2, BackgroundColour.blue_to_red()
    blue, red = (partial(on_background, colours=each, name=name) for each, name in ((BLUES, "blue"), (reds, "red")))
    a, b = blue(train.rows(torch.arange(half)), key=1), red(train.rows(torch.arange(half, 2 * half)), key=2)
    return Case(a, b, blue(test, key=3), red(test, key=4), epochs=4, width=16, settings={"iterations": 250})


CASES: dict[str, Callable[[Path | None], Case]] = {"gtsrb": gtsrb, "mnist": mnist}


def oracle(name: str, case: Case, runs: Path) -> torch.nn.Module:
    """A classifier that was trained on both domains with labels; B has as much weight as A."""
    network = nets.RobeyCNN(3, case.a.x.shape[2], case.a.classes, width=case.width, batch_norm=True)
    path = runs / f"oracle-{name}-{case.width}-{case.epochs}.safetensors"
    if path.exists():
        return weights_file.load(path, network)
    times = max(1, round(len(case.a) / len(case.b)))
    x, y = (torch.cat([getattr(case.a, part), *[getattr(case.b, part)] * times]) for part in ("x", "y"))
    fit(network, ERM(), (x, y), epochs=case.epochs, progress=False, **ORACLE)
    weights_file.save(path, network)
    return network


def learned(title: str, case: Case, settings: dict[str, Any], runs: Path) -> tuple[nuisance.LearnedKernel, float]:
    """The kernel of these settings and the CPU seconds of its training, from `runs` where it is there."""
    folder = runs / slug(title)
    seconds = folder / "seconds.json"
    if not (folder / FILE).exists() or not seconds.exists():
        began = time.process_time()
        kernel = nuisance.learn(case.a, case.b, progress=False, **case.settings | settings)
        kernel.save(folder)
        with atomic_write(seconds) as partial_path:
            partial_path.write_text(json.dumps(time.process_time() - began))
    return nuisance.LearnedKernel.load(folder), json.loads(seconds.read_text())


def add(report: Report, name: str, share: str, settings: dict[str, Any], case: Case, runs: Path) -> None:
    """A row of the table."""
    changed = " ".join([f"share={share}", *(f"{key}={value}" for key, value in settings.items())])
    title = f"{case.a.name} to {case.b.name}, {changed}"
    kernel, seconds = learned(title, case, {"share": share, **settings}, runs)
    classifier = oracle(name, case, runs)
    quality = kernel.quality(case.test_a, case.test_b, classifier=classifier, limit=TESTS)
    report.add(**{
        "case": title, "CPU s": seconds, "brightness of G": quality.brightness, "of B": quality.brightness_b,
        "energy distance": quality.brightness_distance, "before": quality.brightness_distance_before,
        "label kept %": 100 * quality.label_kept, "spread": quality.spread,
        "oracle on A %": 100 * quality.label_before,
        "oracle on B %": 100 * evaluate(classifier, case.test_b).top(1),
    })  # fmt: skip


def setting(text: str) -> tuple[str, Any]:
    """An argument of `learn`, such as cycle=0."""
    name, separator, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected NAME=NUMBER, such as cycle=0, got {text!r}") from None


def main() -> None:
    options = parser(__doc__)
    add_data_root(options)
    options.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    options.add_argument("--share", nargs="+", default=["all"], choices=SHARES, help="weights that the domains share")
    options.add_argument("--settings", type=setting, nargs="+", default=[], metavar="NAME=NUMBER", help="of `learn`")
    options.add_argument(
        "--runs", type=Path, default=ROOT / "runs" / "robey_kernels", help="folder of trained networks"
    )
    arguments = parse(options, selections=("cases", "share"))
    report = Report("robey_kernels", "Learned models of natural variation", arguments.output)
    for name in arguments.cases:
        case = CASES[name](arguments.data_root)
        for share in arguments.share:
            add(report, name, share, dict(arguments.settings), case, arguments.runs)
    report.show()


if __name__ == "__main__":
    main()
