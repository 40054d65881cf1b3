"""`robustperf train`: train a classifier for robustness, on one process or under `torchrun` on many."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustperf.cli.options import DOMAIN_HELP, Data, draw_picture, say
from robustperf.cli.training_options import OBJECTIVES, TrainingOptions, with_options
from robustperf.files import user_path
from robustperf.names import ROOT_VARIABLE

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from robustperf.training import Fitted, Objective
    from robustperf.training.run_folder import RunFolder


@with_options
def train(
    data: Data,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", parser=user_path, help="The folder for checkpoints, weights and curves."),
    ],
    objective: Annotated[str, typer.Option(help=f"{OBJECTIVES}.")] = "erm",
    *,
    options: TrainingOptions,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=user_path, help="The initial weights, a safetensors file; needed by adda."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="DOMAIN", help="The domain without labels of adda, " + DOMAIN_HELP)
    ] = None,
    target_data: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its data set; that of --data by default.")
    ] = None,
    weight: Annotated[
        float | None,
        typer.Option(min=0, help="Weight of the loss on clean images; for hein and cotrain, of the regulariser."),
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            help="The fraction held out to choose the best epoch; 0 keeps the last epoch. 0.1 by default; 0 for adda."
        ),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard logs in DIR.")] = False,
) -> None:
    """Train a classifier on a data set's train split, or on one of its domains."""
    from rich.console import Console

    from robustperf import plot, processes
    from robustperf.nets import weights_file
    from robustperf.training import ADDA
    from robustperf.training.run_folder import RunFolder

    dataset = options.load(data, "train")
    unlabelled = None
    if target is not None or target_data is not None:
        unlabelled = replace(options, domain=target).load(target_data or data, "train")
    classifier = options.new_classifier(dataset)
    if checkpoint is not None:
        weights_file.load(checkpoint, classifier)
    loss = options.build_objective(objective, weight, classifier, dataset, unlabelled)
    if isinstance(loss, ADDA) and checkpoint is None:
        raise ValueError(
            "checkpoint: expected the weights of a classifier that adda adapts, such as those of a run "
            "with erm, got none"
        )
    if validation is None:
        validation = 0.1 if loss.classifies else 0
    main = processes.join(options.cpu).is_main_process
    console = Console(quiet=not main)
    try:
        log_with = "tensorboard" if tensorboard else None
        fitted = options.fit(classifier, loss, dataset, out=out, validation=validation or None, log_with=log_with)
    except KeyboardInterrupt:
        say(console, f"Interrupted. {kept(RunFolder(out))}")
        raise typer.Exit(130) from None
    if not main:
        return
    console.print(_table(dataset.name, loss, classifier, fitted))
    folder = RunFolder(out)
    others = [learner.name for learner in loss.learners(classifier) if not learner.is_main]
    files = {
        "weights": folder.weights,
        "checkpoint": folder.checkpoint,
        "epochs": folder.metrics,
        "steps": folder.steps,
        **{name: folder.weights_of(name) for name in others},
        "curves": out / "curves.png",
    }
    if not draw_picture(
        plot.training_curves,
        fitted.epochs,
        path=files["curves"],
        best=fitted.best,
        title=f"{objective} on {dataset.name}",
    ):
        del files["curves"]
    for what, path in files.items():
        say(console, f"{what:>10}: {path}")
    given = {
        "--checkpoint": folder.weights,
        "--data": data,
        "--data-root": None if str(options.data_root) == os.environ.get(ROOT_VARIABLE) else options.data_root,
        "--domain": options.domain,
        "--classes": options.classes,
        "--size": options.size,
        "--model": options.model,
    }
    words = [word for option in given.items() if option[1] is not None for word in option] + ["--rgb"] * options.rgb
    say(console, "Next:")
    for command in (["evaluate"], ["margins", "--out", out / "margins"]):
        say(console, "  " + shlex.join(map(str, ["robustperf", *command, *words])))


def kept(folder: RunFolder) -> str:
    """What --resume finds in the folder of an interrupted run, as a sentence."""
    if not folder.checkpoint.exists():
        return "There is no checkpoint yet: --resume starts at the first step."
    from robustperf.training.checkpoint import steps_saved

    try:
        steps = steps_saved(folder.checkpoint)
    except ValueError as error:
        return str(error)
    return f"--resume continues after step {steps}, from {folder.checkpoint}."


def _table(data: str, objective: Objective, model: nn.Module, fitted: Fitted) -> Table:
    from rich.table import Table
    from rich.text import Text

    best = fitted.epochs[fitted.best - 1]
    seconds = sum(row["seconds"] for row in fitted.epochs)
    images = sum(row["images_per_second"] * row["seconds"] for row in fitted.epochs)
    table = Table(title=Text(f"Training on {data}"), show_header=False)
    table.add_row("objective", Text(repr(objective)))
    table.add_row("network", f"{type(model).__name__}, {sum(p.numel() for p in model.parameters()):,} parameters")
    table.add_row("epochs", str(len(fitted.epochs)))
    if "validation_accuracy" in best:
        table.add_row("best epoch", str(fitted.best))
        table.add_row("its validation accuracy", f"{best['validation_accuracy']:.2%}")
    else:
        table.add_row("weights", f"of epoch {fitted.best}, the last one, as there is no validation set")
    table.add_row("images/s", f"{images / seconds:,.0f}")
    return table
