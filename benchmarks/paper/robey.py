"""What the benchmarks on Robey et al. 2020 share: scales, methods, learned kernels, training and tables."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import options as common
from benchmarks.common.machine import slug
from benchmarks.common.report import Report
from benchmarks.common.settings import Settings
from benchmarks.common.tables import write_files
from robustperf import nets, nuisance, training
from robustperf.data import Dataset
from robustperf.kernel import Kernel
from robustperf.nuisance import LearnedKernel
from robustperf.training import ERM, MAT, MDA, MRT, AdversarialTraining, AugMix, Objective, evaluate, fit
from robustperf.training.run_folder import describe_data


@dataclass(frozen=True)
class Scale(Settings):
    """The extent of R A.2's training and of R A.4's learning.

    Attributes:
        width: channels of the classifier's first convolution, 32 in the paper.
        epochs: 100 in the paper.
        longest: epochs of "ERM converged" and "MDA converged".
        batch: images in a step, 64 in the paper.
        samples: at most so many training images; None for all.
        tests: at most so many test images; None for all.
        seeds: number of trials.
        side: of traffic signs in pixels, 64 in the paper; None for the prepared files of 32.
        iterations: of learning a kernel.
        learning: further arguments of `nuisance.learn`.
        resnet50: whether classifiers of ImageNet are ResNet-50, as in the paper, on whole images.
    """

    width: int
    epochs: int
    longest: int
    batch: int
    samples: int | None
    tests: int | None
    seeds: int
    side: int | None
    iterations: int
    learning: Mapping[str, Any] = field(default_factory=dict)
    resnet50: bool = False


SMOKE = Scale(
    width=4, epochs=1, longest=2, batch=64, samples=128, tests=128, seeds=1, side=None, iterations=2,
    learning={"width": 4},
)  # fmt: skip
CPU = Scale(width=12, epochs=10, longest=40, batch=32, samples=1500, tests=1000, seeds=3, side=None, iterations=2500)
FULL = Scale(
    width=32, epochs=100, longest=200, batch=64, samples=None, tests=None, seeds=5, side=64, iterations=100_000,
    learning={"share": "none", "width": 64, "batch_size": 1, "lr": 1e-4, "cycle": 0.0}, resnet50=True,
)  # fmt: skip

METHODS = ("ERM", "ERM converged", "PGD", "MRT", "MRT per sample", "MDA", "MDA converged", "MAT")
SNAPSHOTS = (10, 100, 250, 500, 1000, 2000, 2500, 3000, 4000)  # those of R Figure 8, and 2,500
_AUGMENTED, _CONVERGED = "+Aug", " converged"
_EVERY = 5  # epochs between two tests of a method that is trained until it has converged
_ADDA_BATCH = 128  # and its optimizer: Tzeng et al. 2017, section 5
_ADAM = partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999))


@dataclass(frozen=True)
class Row:
    """A row of a table: classifiers trained in domain A and tested in domain B.

    Attributes:
        train: domain A's training images, with labels.
        tests: domain B's test images, by their name in the table.
        kernel: G, the model of natural variation from A to B.
        target: domain B's training images. ADDA reads them without their labels, and methods "+Aug" with them.
        paper: accuracies in percent by name in the table and method: top-1, or (top-1, top-5).
        imagenet: whether the images are ImageNet's, which have a network and a schedule of their own.
    """

    train: Dataset
    tests: Mapping[str, Dataset]
    kernel: Kernel
    target: Dataset | None = None
    paper: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    imagenet: bool = False


def parser(
    description: str, methods: Sequence[str] = METHODS, default: Sequence[str] | None = None, known: bool = False
) -> argparse.ArgumentParser:
    """The options of every benchmark on the paper.

    Args:
        methods: that can be chosen.
        default: those that run by default; None for all.
        known: whether a known kernel can replace the learned one.
    """
    options = common.parser(description)
    options.add_argument(
        "--scale", choices=["smoke", "cpu", "full"], default="cpu", help="cpu: minutes on two cores; full: the paper's"
    )
    common.add_data_root(options)
    options.add_argument("--methods", nargs="+", default=list(default or methods), choices=methods)
    options.add_argument("--seeds", type=int, help="number of trials; by default the scale's")
    options.add_argument("--iterations", type=int, help="of learning a kernel; by default the scale's")
    options.add_argument(
        "--runs",
        type=Path,
        default=common.ROOT / "runs" / "robey",
        help="folder of learned kernels and accuracies; what it holds is not computed again",
    )
    if known:
        options.add_argument(
            "--kernel", choices=["learned", "known"], default="learned", help="the paper's, or one of the library's"
        )
    return options


def scale_of(arguments: argparse.Namespace, cpu: Scale = CPU) -> Scale:
    """The chosen scale; `cpu` is the table's own."""
    scale = {"smoke": SMOKE, "cpu": cpu, "full": FULL}[arguments.scale]
    given = {"seeds": arguments.seeds, "iterations": arguments.iterations}
    return replace(scale, **{name: value for name, value in given.items() if value is not None})


def report_of(name: str, title: str, arguments: argparse.Namespace, scale: Scale) -> Report:
    """The report of a table; a known kernel has files of its own."""
    if getattr(arguments, "kernel", "learned") == "known":
        name, title = f"{name}_known", f"{title}, known kernel"
    return Report(name, title, arguments.output, settings=scale)


def sample(dataset: Dataset, limit: int | None, seed: int = 0) -> Dataset:
    """At most `limit` of its points, chosen at random."""
    if limit is None or len(dataset) <= limit:
        return dataset
    return dataset.rows(torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:limit])


def learned(title: str, a: Any, b: Any, scale: Scale, arguments: argparse.Namespace) -> LearnedKernel:
    """G from domain A to domain B (R section 4.3) with snapshots, learned once: other tables find it by its title."""
    began = time.perf_counter()
    kernel = nuisance.learn(
        a,
        b,
        iterations=scale.iterations,
        snapshots=[step for step in SNAPSHOTS if step <= scale.iterations],
        out=kernel_folder(title, scale, arguments),
        resume=True,
        progress=False,
        **scale.learning,
    )
    print(f"G of {title}: {scale.iterations} iterations, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return kernel


def kernel_folder(title: str, scale: Scale, arguments: argparse.Namespace) -> Path:
    """The folder of a learned kernel."""
    return arguments.runs / arguments.scale / "kernels" / f"{slug(title)}-{scale.iterations}"


def objective(method: str, kernel: Kernel) -> Objective:
    """The method with R A.1's settings: lambda = 1; k = 10 for MRT and MAT, 3 for MDA, or the k of "MRT-5".

    "MRT" chooses one draw for the batch, as in Algorithm 2; "MRT per sample" one for each image, as in equation 5.1.
    AugMix has the severity of its published script for ImageNet. "+Aug" and " converged" say how the method is trained.
    """
    method = _plain(method)
    if method == "ERM":
        return ERM()
    if method == "PGD":
        return AdversarialTraining()
    if method == "AugMix":
        return AugMix(kernel=nuisance.AugMix(severity=1))
    name, k, per_sample = re.fullmatch(r"(MRT|MDA|MAT)(?:-(\d+))?( per sample)?", method).groups()
    kind, usual_k = {"MRT": (MRT, 10), "MAT": (MAT, 10), "MDA": (MDA, 3)}[name]
    return kind(kernel, k=int(k or usual_k), **({"selection": "sample"} if per_sample else {}))


def train(
    method: str, row: Row, scale: Scale, seed: int, out: Path, after_step: Callable[..., None] | None = None
) -> torch.nn.Module:
    """A classifier after R A.2's training, or ADDA's (R A.1); a run in `out` that was interrupted is resumed.

    Args:
        after_step: called with the model and the number of steps.
    """
    images, plain = _training_images(method, row), _plain(method)
    torch.manual_seed(seed)
    if row.imagenet and scale.resnet50:
        model, schedule = nets.ResNet50(classes=images.classes), {"optimizer": "sgd", "lr": (0.05, 0.001)}
    else:
        kind = nets.LeNet if plain == "ADDA" else partial(nets.RobeyCNN, width=scale.width)
        model, schedule = kind(*images[0][0].shape[:2], images.classes), {"optimizer": "adadelta"}
    run = {"validation": None, "seed": seed, "progress": False, "resume": True}
    epochs = scale.longest if method.endswith(_CONVERGED) else scale.epochs
    fit(
        model,
        ERM() if plain == "ADDA" else objective(plain, row.kernel),
        images,
        epochs=epochs,
        batch_size=_batch_size(method, row, scale),
        out=out,
        after_step=None if after_step is None else partial(after_step, model),
        **schedule,
        **run,
    )
    if plain == "ADDA":
        batch = min(_ADDA_BATCH, len(images), len(row.target))
        adapt = training.ADDA(row.target, model)
        fit(model, adapt, images, epochs=epochs, out=out / "adapted", optimizer=_ADAM, batch_size=batch, **run)
    return model


def _plain(method: str) -> str:
    return method.removesuffix(_CONVERGED).removesuffix(_AUGMENTED)


def _batch_size(method: str, row: Row, scale: Scale) -> int:
    """Images in a step; ResNet-50 gets half of them for the model-based algorithms (R A.2)."""
    halved = row.imagenet and scale.resnet50 and method.startswith(("MRT", "MDA", "MAT"))
    return min(scale.batch // 2 if halved else scale.batch, len(_training_images(method, row)))


def _training_images(method: str, row: Row) -> Dataset:
    return Dataset.concatenate([row.train, row.target]) if method.endswith(_AUGMENTED) else row.train


def accuracies(method: str, row: Row, scale: Scale, seed: int, runs: Path) -> dict[str, tuple[float, float]]:
    """(top-1, top-5) in percent on each of the row's tests; written to `runs`, and read there the next time.

    A method "converged" is tested every few epochs and has the best accuracy of all, more than a user could choose.
    """
    facts = [method, row.imagenet, scale.width, scale.epochs, scale.longest, scale.batch, scale.resnet50, seed]
    facts += [describe_data(_training_images(method, row)), *map(describe_data, row.tests.values())]
    facts += [describe_data(row.target) if method == "ADDA" else repr(objective(method, row.kernel))]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    folder = runs / "classifiers" / f"{slug(method)}-{digest}"
    steps = len(_training_images(method, row)) // _batch_size(method, row, scale)
    found = _Accuracies(folder / "accuracies.json", row.tests, steps)
    if not found.finished:
        after_step = found.after_step if method.endswith(_CONVERGED) else None
        model = train(method, row, scale, seed, folder, after_step)
        found.add("last", model)
    return found.best()


class _Accuracies:
    """The accuracies of a classifier during and after its training, in a file; an epoch has `steps` steps."""

    def __init__(self, path: Path, tests: Mapping[str, Dataset], steps: int):
        self.path, self.tests, self.steps = path, tests, steps
        self.by_epoch = json.loads(path.read_text()) if path.exists() else {}

    @property
    def finished(self) -> bool:
        return "last" in self.by_epoch

    def after_step(self, model: torch.nn.Module, step: int) -> None:
        if step % (_EVERY * self.steps) == 0:
            self.add(str(step // self.steps), model)

    def add(self, epoch: str, model: torch.nn.Module) -> None:
        found = {name: evaluate(model, test) for name, test in self.tests.items()}
        self.by_epoch[epoch] = {name: [100 * each.top(1), 100 * each.top(5)] for name, each in found.items()}
        write_files(self.path.parent, {self.path.name: json.dumps(self.by_epoch)})

    def best(self) -> dict[str, tuple[float, float]]:
        return {name: tuple(max(each[name] for each in self.by_epoch.values())) for name in self.tests}


def fill(report: Report, rows: Iterable[Callable[[], Row]], arguments: argparse.Namespace, scale: Scale) -> None:
    """Trains and tests by the chosen methods, row by row; one whose data is not in the folder is left out.

    Args:
        rows: functions, so that the data of one row is in memory at a time.

    Raises SystemExit where no row has its data.
    """
    for make in rows:
        try:
            row = make()
        except FileNotFoundError as error:
            print(f"A row is left out. {error}", file=sys.stderr)
            continue
        found = {method: trials(method, row, scale, arguments) for method in arguments.methods}
        for name in row.tests:
            _add(report, name, {method: [each[name] for each in of_seeds] for method, of_seeds in found.items()}, row)
    if not report.rows:
        raise SystemExit("no row of the table has its data; see --data-root")


def trials(method: str, row: Row, scale: Scale, arguments: argparse.Namespace) -> list[dict[str, tuple[float, float]]]:
    """`accuracies` for each seed."""
    began, found = time.perf_counter(), []
    for seed in range(scale.seeds):
        found.append(accuracies(method, row, scale, seed, arguments.runs / arguments.scale))
        top = ", ".join(f"{name} {values[0]:.1f}" for name, values in found[-1].items())
        print(f"{method}, seed {seed}: {top} ({time.perf_counter() - began:.0f} s)", file=sys.stderr, flush=True)
    return found


def _add(report: Report, name: str, found: dict[str, list[tuple[float, float]]], row: Row) -> None:
    """Adds a line for each method: our accuracy with its deviation over seeds, and the paper's."""
    printed = {method: value if isinstance(value, tuple) else (value,) for method, value in row.paper[name].items()}
    base = next((method for method in ("ERM", f"ERM{_AUGMENTED}") if method in found), None)
    with_top5 = any(len(value) == 2 for value in printed.values())
    for method, values in found.items():
        first, fifth = zip(*values, strict=True)
        paper = printed.get(method, ())
        cells = {"accuracy %": statistics.mean(first)}
        cells["deviation"] = statistics.stdev(first) if len(first) > 1 else None
        if base:
            cells["above ERM"] = cells["accuracy %"] - statistics.mean(value for value, _ in found[base])
        cells["paper %"] = paper[0] if paper else None
        cells["paper above ERM"] = paper[0] - printed[base][0] if paper and base in printed else None
        if with_top5:
            cells |= {"top-5 %": statistics.mean(fifth), "paper top-5 %": paper[1] if len(paper) == 2 else None}
        report.add(case=f"{name}, {method}", **cells)
