"""What the benchmarks on Robey et al. 2020 share: scales, methods, training and tables."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.common import options as common
from benchmarks.common.report import Report
from robustperf import nets
from robustperf.data import Dataset
from robustperf.kernel import Kernel
from robustperf.training import ERM, MAT, MDA, MRT, AdversarialTraining, Objective, evaluate, fit


@dataclass(frozen=True)
class Scale:
    """The extent of R A.2's training.

    Attributes:
        width: channels of the first convolution, 32 in the paper.
        epochs: 100 in the paper.
        samples: at most so many training images; None for all.
        tests: at most so many test images; None for all.
        seeds: number of trials.
    """

    width: int
    epochs: int
    samples: int | None
    tests: int | None
    seeds: int


METHODS = ("ERM", "PGD", "MRT", "MRT per sample", "MDA", "MAT")

SMOKE = Scale(width=4, epochs=1, samples=256, tests=256, seeds=1)
FULL = Scale(width=32, epochs=100, samples=None, tests=None, seeds=5)


def parser(description: str) -> argparse.ArgumentParser:
    """The options of every benchmark on the paper."""
    options = common.parser(description)
    options.add_argument(
        "--scale", choices=["smoke", "cpu", "full"], default="cpu", help="cpu: minutes on two cores; full: the paper's"
    )
    common.add_data_root(options)
    options.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    return options


def scale_of(arguments: argparse.Namespace, cpu: Scale) -> Scale:
    """The chosen scale; `cpu` is the table's own."""
    return {"smoke": SMOKE, "cpu": cpu, "full": FULL}[arguments.scale]


def objective(method: str, kernel: Kernel, k: int | None = None) -> Objective:
    """The method with R A.1's settings: lambda = 1; k = 10 for MRT and MAT, 3 for MDA.

    "MRT" chooses one draw for the batch, as in Algorithm 2; "MRT per sample" one for each image, as in equation 5.1.
    """
    if method == "ERM":
        return ERM()
    if method == "PGD":
        return AdversarialTraining()
    per_sample = partial(MRT, selection="sample")
    kind, usual_k = {"MRT": (MRT, 10), "MRT per sample": (per_sample, 10), "MAT": (MAT, 10), "MDA": (MDA, 3)}[method]
    return kind(kernel, k=usual_k if k is None else k)


def sample(dataset: Dataset, limit: int | None, seed: int = 0) -> Dataset:
    """At most `limit` of its points, chosen at random."""
    if limit is None or len(dataset) <= limit:
        return dataset
    return dataset.rows(torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:limit])


def train(objective: Objective, dataset: Dataset, scale: Scale, seed: int) -> torch.nn.Module:
    """R A.2's network after R A.2's training: Adadelta with a rate of 1.0, batches of 64."""
    torch.manual_seed(seed)
    model = nets.RobeyCNN(dataset.x.shape[1], dataset.x.shape[2], dataset.classes, width=scale.width)
    fit(model, objective, dataset, validation=None, epochs=scale.epochs, seed=seed, progress=False)
    return model


def accuracies(methods: Mapping[str, Objective], dataset: Dataset, test: Dataset, scale: Scale) -> dict[str, list]:
    """Top-1 accuracies on `test`, in percent, of networks trained by each method, one for each seed."""
    found = {}
    for name, method in methods.items():
        began = time.perf_counter()
        found[name] = [100 * evaluate(train(method, dataset, scale, seed), test).top(1) for seed in range(scale.seeds)]
        print(
            f"{dataset.name}: {name} {statistics.mean(found[name]):.1f} ({time.perf_counter() - began:.0f} s)",
            file=sys.stderr,
        )
    return found


def table_rows(report: Report, case: str, found: dict[str, list], paper: Mapping[str, float | None]) -> None:
    """Adds a row for each method: our accuracy and the paper's."""
    for name, values in found.items():
        spread = {"deviation": statistics.stdev(values)} if len(values) > 1 else {}
        report.add(
            case=f"{case}, {name}",
            **{"accuracy %": statistics.mean(values)},
            **spread,
            **{
                "above ERM": statistics.mean(values) - statistics.mean(found["ERM"]) if "ERM" in found else None,
                "paper %": paper.get(name),
                "paper above ERM": _above(paper, name),
            },
        )


def _above(paper: Mapping[str, float | None], name: str) -> float | None:
    return None if paper.get(name) is None or paper.get("ERM") is None else paper[name] - paper["ERM"]
