"""`robustperf sweep`: the largest weight of a regulariser within an accuracy budget."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustperf.cli.options import Data, say
from robustperf.cli.training_options import OBJECTIVES, TrainingOptions, with_options
from robustperf.files import atomic_write, user_path

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from robustperf.data import Dataset, ImageFolder
    from robustperf.training import Objective

UNREGULARISED = "unregularised"


@with_options
def sweep(
    data: Data,
    out: Annotated[
        Path, typer.Option(metavar="DIR", parser=user_path, help="The folder for the table, and a folder for each run.")
    ],
    objective: Annotated[str, typer.Option(help=f"The objective without its weight: {OBJECTIVES}.")],
    weights: Annotated[str, typer.Option(metavar="LIST", help="The weights to try, such as 0.01,0.03,0.1,0.3,1.")],
    *,
    options: TrainingOptions,
    within: Annotated[
        float, typer.Option(min=0, help="The allowed loss of validation accuracy compared with no regulariser.")
    ] = 0.01,
    validation: Annotated[
        float, typer.Option(help="The fraction held out to choose the best epoch and the weight.")
    ] = 0.1,
) -> None:
    """Train without a regulariser and with each of several weights, and choose the largest weight that keeps the
    accuracy (T section 3.3)."""
    from rich.console import Console

    from robustperf import processes
    from robustperf.training import ERM, evaluate

    values = parse_weights(weights)
    dataset, test = options.load(data, "train"), _test_split(data, options)

    def new_run(weight: float | None) -> tuple[nn.Module, Objective]:
        classifier = options.new_classifier(dataset)
        if weight is None:
            return classifier, ERM()
        loss = options.build_objective(objective, weight, classifier, dataset)
        if loss.weight != weight:
            raise ValueError(f"objective: expected one without a weight, which --weights has, got {objective}")
        return classifier, loss

    new_run(values[0])  # a wrong objective fails before any work
    main = processes.join(options.cpu).is_main_process
    console, rows = Console(quiet=not main), []
    for weight in (None, *values):
        name = UNREGULARISED if weight is None else f"weight-{weight}"
        say(console, f"{name}:")
        classifier, loss = new_run(weight)
        try:
            fitted = options.fit(classifier, loss, dataset, out=out / name, validation=validation)
        except KeyboardInterrupt:
            say(console, f"Interrupted in {out / name}: --resume continues from its checkpoint.")
            raise typer.Exit(130) from None
        accuracy = fitted.epochs[fitted.best - 1]["validation_accuracy"]
        rows.append(
            {
                "run": name,
                "weight": weight,
                "best_epoch": fitted.best,
                "validation_accuracy": accuracy,
                "test_accuracy": None if test is None else evaluate(classifier, test, workers=options.workers).top(1),
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
        if chosen["weight"] == values[-1]:
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
    """The row of the largest weight with at least the validation accuracy of the first row minus `within`, or None."""
    least = rows[0]["validation_accuracy"] - within - 1e-9  # for rounding
    near = [row for row in rows[1:] if row["validation_accuracy"] >= least]
    return max(near, key=lambda row: row["weight"], default=None)


def _test_split(data: str, options: TrainingOptions) -> Dataset | ImageFolder | None:
    """The test split, or None if the data set has only one split."""
    if data.endswith(".npz"):
        return None
    try:
        return options.load(data, "test")
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
