"""`robustperf train`: train a classifier for robustness, on one process or under `torchrun` on many."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from safetensors import SafetensorError, safe_open
from torch import nn

from robustperf import nets, nuisance, plot, processes
from robustperf.attacks import PGD
from robustperf.cli.data import DataRoot
from robustperf.cli.expression import build_list
from robustperf.cli.nuisance import build_kernel
from robustperf.cli.options import Data, Domain, Limit, Rgb, Size, draw_picture, load_data, make_network, say, shape_of
from robustperf.data import Dataset, ImageFolder
from robustperf.data.load import ROOT_VARIABLE
from robustperf.files import user_path
from robustperf.kernel import Kernel
from robustperf.training import (
    ERM,
    MAT,
    MDA,
    MRT,
    AdversarialTraining,
    AugMix,
    CoTrain,
    CrossLipschitz,
    Fitted,
    GaussianAugmentation,
    Objective,
    fit,
)
from robustperf.training.fit import PRECISIONS
from robustperf.training.folder import TrainingFolder
from robustperf.training.optimizers import OPTIMIZERS, Rate

NETWORK = "robey-cnn"
OF_ANY_SIZE = ("resnet20", "resnet50")


# what `sweep` has too
OBJECTIVES = ("erm, mrt, mat, mda, pgd, gaussian, augmix, hein or cotrain, with arguments such as "
              "'mrt(selection=\"sample\", selection_dtype=\"bfloat16\")', 'mat(step=0.1)', 'pgd(norm=2, eps=0.5)', "
              "'gaussian(0.1)', 'augmix(severity=3)', 'hein(0.1)', 'cotrain(0.5, width=32)'")
KernelSum = Annotated[
    str | None,
    typer.Option(metavar="SUM", help="The natural variation of mrt, mat and mda, such as 'rotation(30) + "
                 f"brightness(0.4)'. There are {', '.join(nuisance.KERNELS)}."),
]
K = Annotated[int | None, typer.Option(min=1, help="Draws of mrt and mda, steps of mat.")]
Network = Annotated[str | None, typer.Option(help=f"{', '.join(nets.NAMES)}; without, {NETWORK}.")]
OwnNetwork = Annotated[
    str | None, typer.Option(metavar="MODULE:FUNCTION", help="What makes a network of your own.")
]
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
        say(console, f"Interrupted. {_kept(TrainingFolder(out))}")
        raise typer.Exit(130) from None
    if not main:
        return
    console.print(_table(dataset.name, loss, classifier, fitted))
    folder = TrainingFolder(out)
    files = {"weights": folder.best, "state": folder.state, "epochs": folder.metrics, "steps": folder.losses,
             **({"generator": out / "generator.safetensors"} if isinstance(loss, CoTrain) else {}),
             "curves": out / "curves.png"}
    if not draw_picture(plot.training_curves, fitted.epochs, path=files["curves"], best=fitted.best,
                title=f"{objective} on {dataset.name}"):
        del files["curves"]
    for what, path in files.items():
        say(console, f"{what:>9}: {path}")
    given = {"--data": data, "--data-root": None if str(data_root) == os.environ.get(ROOT_VARIABLE) else data_root,
             "--domain": domain, "--size": size, "--model": model}
    options = ["--checkpoint", folder.best, *(part for option in given.items() if option[1] is not None
                                              for part in option), *["--rgb"] * rgb]
    say(console, "Go on with:")
    for command in (["evaluate"], ["margins", "--out", out / "margins"]):
        say(console, "  " + shlex.join(map(str, ["robustperf", *command, *options])))


def build_objective(text: str, kernel: Kernel | None = None, k: int | None = None,
                    weight: float | None = None, classifier: nn.Module | None = None, channels: int = 1) -> Objective:
    """The objective of `text`; `kernel`, `k` and `weight` are its arguments unless `text` says otherwise. With
    "cotrain" it is one of `classifier`, with a new generator of images with so many channels.

    Raises ValueError that points at the place in `text`, or names the argument that this objective does not take.
    """
    given = {name: value for name, value in {"k": k, "weight": weight}.items() if value is not None}
    weighted = {name: value for name, value in given.items() if name == "weight"}

    def with_kernel(make: Callable[..., Objective]) -> Callable[..., Objective]:
        return _no_kernel if kernel is None else partial(make, kernel, **given)

    makers = {"erm": ERM, "mrt": with_kernel(_mrt), "mat": with_kernel(MAT), "mda": with_kernel(MDA),
              "pgd": partial(_pgd, **weighted), "gaussian": partial(GaussianAugmentation, **weighted),
              "augmix": partial(_augmix, **weighted), "hein": partial(CrossLipschitz, **weighted),
              "cotrain": partial(_cotrain, classifier, channels, **weighted)}
    try:
        objectives = build_list(text, makers)
    except ValueError as error:
        raise ValueError(f"objective: {error}") from error
    if len(objectives) != 1:
        raise ValueError(f"objective: expected one, got {len(objectives)}: {text}")
    taken = {field.name for field in fields(objectives[0])}
    if isinstance(objectives[0], AugMix):
        taken.remove("kernel")  # it has its own
    for name, value in {"kernel": kernel, **given}.items():
        if value is not None and name not in taken:
            raise ValueError(f"{name}: expected none for the objective {text}, which does not take it, got {value!r}")
    return objectives[0]


def new_classifier(dataset: Dataset | ImageFolder, network: str | None, model: str | None, batch_norm: bool,
                   seed: int) -> nn.Module:
    """The network of these options for the data set's images, with the weights that the seed gives it."""
    torch.manual_seed(seed)
    if model is None:
        return build_network(network or NETWORK, shape_of(dataset), dataset.classes, batch_norm)
    if network is not None or batch_norm:
        raise ValueError(f"model: expected no --network or --batch-norm beside it, got {model}")
    return make_network(model)


def build_network(name: str, shape: tuple[int, int, int], classes: int, batch_norm: bool = False) -> nn.Module:
    """The network called `name`, one of `nets.NAMES`, for images of `shape`. Raises ValueError where there is none."""
    channels, height, width = shape
    arguments = {"in_channels": channels, "classes": classes}
    if name not in OF_ANY_SIZE:
        if height != width:
            raise ValueError(f"network: expected square images for {name}, got {height}x{width}; --size resizes them")
        arguments["size"] = height
    if batch_norm:
        if name != NETWORK:
            raise ValueError(f"batch_norm: expected the network {NETWORK}, got {name}")
        arguments["batch_norm"] = True
    try:
        return nets.build(name, **arguments)
    except ValueError as error:
        hint = "" if name not in nets.NAMES else f", for images of {height}x{width} pixels; --size resizes them"
        raise ValueError(f"network: {error}{hint}") from error


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
        raise ValueError("lr: expected a rate such as 0.05, a line such as 0.05:0.001, or rates from epochs on such as "
                         f"0=1e-3,5=1e-4, got {text!r}") from None


def _no_kernel(*arguments: Any, **named: Any) -> Objective:
    raise ValueError("expected a model of natural variation, such as --kernel 'brightness(0.4)', got none")


def _mrt(*arguments: Any, selection_dtype: str | None = None, **named: Any) -> MRT:
    dtypes = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    return MRT(*arguments, selection_dtype=dtypes.get(selection_dtype, selection_dtype), **named)


def _pgd(norm: float = math.inf, *, weight: float = AdversarialTraining.weight, **arguments: Any
         ) -> AdversarialTraining:
    """R A.1's attack in L-infinity but for what is said; in L2 its number of steps."""
    default = AdversarialTraining.attack
    if norm == default.norm:
        attack = replace(default, **arguments)
    else:
        attack = PGD(norm, **{"steps": default.steps, "loss": default.loss, **arguments})
    return AdversarialTraining(attack, weight)


def _augmix(*arguments: Any, weight: float = AugMix.weight, **named: Any) -> AugMix:
    """`arguments` are those of its kernel."""
    return AugMix(weight, nuisance.AugMix(*arguments, **named))


def _cotrain(classifier: nn.Module, channels: int, weight: float, *, width: int = 128, layers: int = 3) -> CoTrain:
    """`width` and `layers` are the generator's."""
    return CoTrain(classifier, nets.TiboGenerator(channels, width, layers), weight)


def _kept(folder: TrainingFolder) -> str:
    if not folder.state.exists():
        return "There is no checkpoint yet: --resume begins at the first step."
    try:
        with safe_open(folder.state, "pt") as file:
            steps = file.get_slice("further.steps").get_shape()[0]
    except (SafetensorError, OSError) as error:
        return f"{folder.state} cannot be gone on with: {error}"
    return f"--resume goes on behind step {steps}, from {folder.state}."


def _table(data: str, objective: Objective, model: nn.Module, fitted: Fitted) -> Table:
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
