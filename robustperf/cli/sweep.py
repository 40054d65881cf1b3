"""`robustperf sweep`: the largest weight of a regulariser that costs no more than so much accuracy."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustperf.cli.options import Data, DataRoot, Domain, Limit, Rgb, Size, load_data, say, shape_of
from robustperf.cli.train import (
    OBJECTIVES,
    BatchNorm,
    BatchSize,
    CheckpointSteps,
    Clip,
    Cpu,
    Epochs,
    K,
    KernelSum,
    LearningRate,
    Network,
    OptimizerName,
    OwnNetwork,
    Precision,
    Seed,
    Workers,
    parse_rate,
)
from robustperf.files import atomic_write, user_path

if TYPE_CHECKING:
    from rich.table import Table

UNREGULARISED = "unregularised"


def sweep(
    data: Data,
    out: Annotated[
        Path, typer.Option(metavar="DIR", parser=user_path, help="Where the table and a folder for each run go.")
    ],
    objective: Annotated[str, typer.Option(help=f"Without its weight: {OBJECTIVES}.")],
    weights: Annotated[str, typer.Option(metavar="LIST", help="Such as 0.01,0.03,0.1,0.3,1.")],
    within: Annotated[
        float, typer.Option(min=0, help="How much lower the validation accuracy may be than without a regulariser.")
    ] = 0.01,
    kernel: KernelSum = None,
    k: K = None,
    network: Network = None,
    model: OwnNetwork = None,
    batch_norm: BatchNorm = False,
    data_root: DataRoot = None,
    domain: Domain = None,
    limit: Limit = None,
    size: Size = None,
    rgb: Rgb = False,
    epochs: Epochs = 10,
    batch_size: BatchSize = 64,
    optimizer: OptimizerName = "adadelta",
    lr: LearningRate = None,
    clip: Clip = None,
    mixed_precision: Precision = "no",
    seed: Seed = 0,
    validation: Annotated[
        float, typer.Option(help="The share that is held out to choose the best epoch and the weight on.")
    ] = 0.1,
    checkpoint_steps: CheckpointSteps = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the runs that DIR holds.")] = False,
    workers: Workers = 0,
    cpu: Cpu = False,
) -> None:
    """Train without a regulariser and with each of several weights, and choose the largest weight that keeps the
    accuracy (T section 3.3)."""
    from rich.console import Console

    from robustperf import processes
    from robustperf.cli.build import build_kernel, build_objective, new_classifier
    from robustperf.training import ERM, evaluate, fit

    numbers = parse_weights(weights)
    rate = None if lr is None else parse_rate(lr)
    variation = None if kernel is None else build_kernel(kernel)
    options = {"domain": domain, "limit": limit, "size": size, "rgb": rgb}
    dataset, test = load_data(data, "train", data_root, **options), _test_split(data, data_root, options)

    def begin(weight):
        classifier = new_classifier(dataset, network, model, batch_norm, seed)
        if weight is None:
            return classifier, ERM()
        loss = build_objective(objective, variation, k, weight, classifier, shape_of(dataset)[0])
        if loss.weight != weight:
            raise ValueError(f"objective: expected one without a weight, which --weights has, got {objective}")
        return classifier, loss

    begin(numbers[0])  # a wrong objective is an error before any work
    main = processes.join(cpu).is_main_process
    console, rows = Console(quiet=not main), []
    for weight in (None, *numbers):
        name = UNREGULARISED if weight is None else f"weight-{weight}"
        say(console, f"{name}:")
        classifier, loss = begin(weight)
        try:
            fitted = fit(
                classifier, loss, dataset, validation=validation, epochs=epochs, batch_size=batch_size,
                optimizer=optimizer, lr=rate, clip=clip, mixed_precision=mixed_precision, seed=seed, out=out / name,
                resume=resume, checkpoint_steps=checkpoint_steps, workers=workers, cpu=cpu,
            )  # fmt: skip
        except KeyboardInterrupt:
            say(console, f"Interrupted in {out / name}: --resume goes on from its checkpoint.")
            raise typer.Exit(130) from None
        accuracy = fitted.epochs[fitted.best - 1]["validation_accuracy"]
        rows.append(
            {
                "run": name,
                "weight": weight,
                "best_epoch": fitted.best,
                "validation_accuracy": accuracy,
                "test_accuracy": None if test is None else evaluate(classifier, test, workers=workers).top(1),
            }
        )
    chosen = choose(rows, within)
    if not main:
        return
    for row in rows:
        row["chosen"] = row is chosen
    path = out / "sweep.csv"
    with atomic_write(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    console.print(_table(f"{objective} on {dataset.name}", rows))
    if chosen is None:
        say(console, f"No weight keeps the accuracy within {within:.2%} of that without a regulariser.")
    else:
        say(
            console,
            f"The largest weight within {within:.2%}: {chosen['weight']}, {out / chosen['run'] / 'model.safetensors'}",
        )
        if chosen["weight"] == numbers[-1]:
            say(console, "It is the largest weight tried: larger ones may keep the accuracy too.")
    say(console, f"table: {path}")


def parse_weights(text: str) -> list[float]:
    """The weights of a text such as 0.01,0.1,1, in ascending order."""
    try:
        weights = sorted(float(part) for part in text.split(","))
    except ValueError:
        weights = []
    if not weights or not all(0 < weight < math.inf for weight in weights) or len(set(weights)) < len(weights):
        raise ValueError(f"weights: expected different finite numbers above 0 such as 0.01,0.1,1, got {text!r}")
    return weights


def choose(rows: list[dict[str, Any]], within: float) -> dict[str, Any] | None:
    """The row of the largest weight whose validation accuracy is that of the first row less `within`, or higher."""
    least = rows[0]["validation_accuracy"] - within - 1e-9  # the difference of two shares is rounded
    near = [row for row in rows[1:] if row["validation_accuracy"] >= least]
    return max(near, key=lambda row: row["weight"], default=None)


def _test_split(data: str, root: Path | None, options: dict[str, Any]) -> Any:
    """None where the data set has one split only."""
    if data.endswith(".npz"):
        return None
    try:
        return load_data(data, "test", root, **options)
    except FileNotFoundError:
        return None


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("weight", title=Text(title))
    for column in ("best epoch", "validation accuracy", "difference", "test accuracy", "chosen"):
        table.add_column(column, justify="right")
    for row in rows:
        weight, test, accuracy = row["weight"], row["test_accuracy"], row["validation_accuracy"]
        difference = "" if weight is None else f"{accuracy - rows[0]['validation_accuracy']:+.2%}"
        table.add_row(
            "none" if weight is None else f"{weight:g}",
            str(row["best_epoch"]),
            f"{accuracy:.2%}",
            difference,
            "" if test is None else f"{test:.2%}",
            "*" * row["chosen"],
        )
    return table
