"""`robustperf train`: train a classifier for robustness, on one process or under `torchrun` on many."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustperf import nets, nuisance
from robustperf.cli.options import (
    NETWORK,
    Data,
    DataRoot,
    Domain,
    Limit,
    Rgb,
    Size,
    draw_picture,
    load_data,
    say,
    shape_of,
)
from robustperf.files import user_path
from robustperf.names import OPTIMIZERS, PRECISIONS, ROOT_VARIABLE

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from robustperf.training import Fitted, Objective
    from robustperf.training.optimizers import Rate
    from robustperf.training.run_folder import RunFolder

# what `sweep` has too
OBJECTIVES = (
    "erm, mrt, mat, mda, pgd, gaussian, augmix, hein or cotrain, with arguments such as "
    '\'mrt(selection="sample", selection_dtype="bfloat16")\', \'mat(start="identity")\', '
    "'pgd(norm=2, eps=0.5)', 'gaussian(0.1)', 'augmix(severity=3)', 'hein(0.1)', 'cotrain(0.5, width=32)'"
)
KernelSum = Annotated[
    str | None,
    typer.Option(
        metavar="SUM",
        help="The natural variation of mrt, mat and mda, such as 'rotation(30) + "
        f"brightness(0.4)'. There are {', '.join(nuisance.NAMES)}.",
    ),
]
K = Annotated[int | None, typer.Option(min=1, help="Draws of mrt and mda, steps of mat.")]
Network = Annotated[str | None, typer.Option(help=f"{', '.join(nets.NAMES)}; without, {NETWORK}.")]
OwnNetwork = Annotated[str | None, typer.Option(metavar="MODULE:FUNCTION", help="What makes a network of your own.")]
BatchNorm = Annotated[bool, typer.Option("--batch-norm", help=f"With batch normalisation, in {NETWORK}.")]
Epochs = Annotated[int, typer.Option(min=1)]
BatchSize = Annotated[int, typer.Option(min=1, help="Of all processes together.")]
OptimizerName = Annotated[str, typer.Option(help=", ".join(OPTIMIZERS) + ".")]
LearningRate = Annotated[
    str | None, typer.Option(metavar="RATE", help="0.05; a line, 0.05:0.001; or from epochs on, 0=1e-3,5=1e-4.")
]
Clip = Annotated[float | None, typer.Option(help="The largest norm of the gradient.")]
Precision = Annotated[str, typer.Option(help=", ".join(PRECISIONS) + ".")]
Seed = Annotated[int, typer.Option(min=0, help="Of the weights, the order and all draws.")]
CheckpointSteps = Annotated[
    int | None, typer.Option(min=1, help="Write a checkpoint after so many steps too, not only after each epoch.")
]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read a folder of images.")]
Cpu = Annotated[bool, typer.Option("--cpu", help="Use no GPU.")]


def train(
    data: Data,
    out: Annotated[
        Path, typer.Option(metavar="DIR", parser=user_path, help="Where checkpoints, weights, tables and curves go.")
    ],
    objective: Annotated[str, typer.Option(help=f"{OBJECTIVES}.")] = "erm",
    kernel: KernelSum = None,
    k: K = None,
    weight: Annotated[
        float | None, typer.Option(min=0, help="Of the clean images' loss; of the regulariser of hein and cotrain.")
    ] = None,
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
        float, typer.Option(help="The share that is held out to choose the best epoch on; 0 takes the last epoch.")
    ] = 0.1,
    checkpoint_steps: CheckpointSteps = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that DIR holds.")] = False,
    workers: Workers = 0,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write what TensorBoard shows, in DIR.")] = False,
    cpu: Cpu = False,
) -> None:
    """Train a classifier on a data set's train split, or on one of its domains."""
    from rich.console import Console

    from robustperf import plot, processes
    from robustperf.cli.build import build_kernel, build_objective, new_classifier
    from robustperf.training import fit
    from robustperf.training.run_folder import RunFolder

    rate = None if lr is None else parse_rate(lr)
    variation = None if kernel is None else build_kernel(kernel)
    dataset = load_data(data, "train", data_root, domain=domain, limit=limit, size=size, rgb=rgb)
    classifier = new_classifier(dataset, network, model, batch_norm, seed)
    loss = build_objective(objective, variation, k, weight, classifier, shape_of(dataset)[0])
    main = processes.join(cpu).is_main_process
    console = Console(quiet=not main)
    try:
        fitted = fit(
            classifier, loss, dataset, validation=validation or None, epochs=epochs, batch_size=batch_size,
            optimizer=optimizer, lr=rate, clip=clip, mixed_precision=mixed_precision, seed=seed, out=out, resume=resume,
            checkpoint_steps=checkpoint_steps, workers=workers, log_with="tensorboard" if tensorboard else None,
            cpu=cpu,
        )  # fmt: skip
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
        "--data": data,
        "--data-root": None if str(data_root) == os.environ.get(ROOT_VARIABLE) else data_root,
        "--domain": domain,
        "--size": size,
        "--model": model,
    }
    options = [
        "--checkpoint",
        folder.weights,
        *(part for option in given.items() if option[1] is not None for part in option),
        *["--rgb"] * rgb,
    ]
    say(console, "Go on with:")
    for command in (["evaluate"], ["margins", "--out", out / "margins"]):
        say(console, "  " + shlex.join(map(str, ["robustperf", *command, *options])))


def parse_rate(text: str) -> Rate:
    """The learning rate of a text such as 0.05, 0.05:0.001 or 0=1e-3,5=1e-4; `fit` checks its numbers."""
    try:
        if "=" in text:
            pairs = [pair.split("=") for pair in text.split(",")]
            rates = {int(epoch): float(rate) for epoch, rate in pairs}
            if len(rates) != len(pairs):
                raise ValueError("an epoch twice")
            return rates
        if ":" in text:
            first, last = map(float, text.split(":"))
            return first, last
        return float(text)
    except ValueError:
        raise ValueError(
            "lr: expected a rate such as 0.05, a line such as 0.05:0.001, or rates from epochs on such as "
            f"0=1e-3,5=1e-4, got {text!r}"
        ) from None


def kept(folder: RunFolder) -> str:
    """What there is in the folder of an interrupted run, for --resume."""
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
        table.add_row("weights", f"of epoch {fitted.best}, the last one, for want of a validation set")
    table.add_row("images/s", f"{images / seconds:,.0f}")
    return table
