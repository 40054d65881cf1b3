"""The options of `train` and `sweep`: one dataclass, whose fields `with_options` adds to a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from robustperf import nets
from robustperf.cli.options import (
    KERNELS_HELP,
    NETWORK,
    Classes,
    Cpu,
    DataRoot,
    Domain,
    Limit,
    Resume,
    Rgb,
    Size,
    Workers,
    load_data,
    shape_of,
)
from robustperf.names import OPTIMIZERS, PRECISIONS

if TYPE_CHECKING:
    from torch import nn

    from robustperf.data import Dataset, ImageFolder
    from robustperf.training import Fitted, Objective
    from robustperf.training.optimizers import Rate

OBJECTIVES = (
    "erm, mrt, mat, mda, pgd, gaussian, augmix, hein, cotrain or adda, with arguments such as "
    '\'mrt(selection="sample", selection_dtype="bfloat16")\', \'mat(start="identity")\', '
    "'pgd(norm=2, eps=0.5)', 'gaussian(0.1)', 'augmix(severity=3)', 'hein(0.1)', "
    "'cotrain(0.5, width=32, generator_steps=5)', 'adda(width=500)'"
)

KernelSum = Annotated[
    str | None,
    typer.Option(
        metavar="SUM",
        help="The natural variation of mrt, mat and mda, such as 'rotation(30) + brightness(0.4)'. Kernels: "
        f"{KERNELS_HELP}",
    ),
]
K = Annotated[int | None, typer.Option(min=1, help="Draws of mrt and mda, steps of mat.")]
Network = Annotated[str | None, typer.Option(help=f"{', '.join(nets.NAMES)}; {NETWORK} by default.")]
OwnNetwork = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="A function that makes your own network; or timm:NAME, hf:NAME or torchvision:NAME, with random weights.",
    ),
]
BatchNorm = Annotated[bool, typer.Option("--batch-norm", help=f"Use batch normalisation, in {NETWORK}.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the training images.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per step, over all processes.")]
OptimizerName = Annotated[str, typer.Option(help=", ".join(OPTIMIZERS) + ".")]
LearningRate = Annotated[
    str | None,
    typer.Option(metavar="RATE", help="0.05; linear from first to last, 0.05:0.001; or by epoch, 0=1e-3,5=1e-4."),
]
Clip = Annotated[float | None, typer.Option(help="Clip the gradient to this norm.")]
Precision = Annotated[str, typer.Option(help=", ".join(PRECISIONS) + ".")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the weights, the order of images and all draws.")]
CheckpointSteps = Annotated[
    int | None, typer.Option(min=1, help="Write a checkpoint every so many steps, besides after each epoch.")
]


@dataclass(frozen=True)
class TrainingOptions:
    """What `train` and `sweep` have in common."""

    kernel: KernelSum = None
    k: K = None
    network: Network = None
    model: OwnNetwork = None
    batch_norm: BatchNorm = False
    data_root: DataRoot = None
    domain: Domain = None
    classes: Classes = None
    limit: Limit = None
    size: Size = None
    rgb: Rgb = False
    epochs: Epochs = 10
    batch_size: BatchSize = 64
    optimizer: OptimizerName = "adadelta"
    lr: LearningRate = None
    clip: Clip = None
    mixed_precision: Precision = "no"
    seed: Seed = 0
    checkpoint_steps: CheckpointSteps = None
    resume: Resume = False
    workers: Workers = 0
    cpu: Cpu = False

    def __post_init__(self) -> None:
        if self.lr is not None:
            parse_rate(self.lr)  # a wrong rate fails before the data are read

    def load(self, data: str, split: str) -> Dataset | ImageFolder:
        """The images of one split; raises as `load_data`."""
        return load_data(
            data,
            split,
            self.data_root,
            domain=self.domain,
            classes=self.classes,
            limit=self.limit,
            size=self.size,
            rgb=self.rgb,
        )

    def new_classifier(self, dataset: Dataset | ImageFolder) -> nn.Module:
        """The network for the images of `dataset`, with the initial weights of the seed."""
        from robustperf.cli.build import new_classifier

        return new_classifier(dataset, self.network, self.model, self.batch_norm, self.seed)

    def build_objective(
        self,
        text: str,
        weight: float | None,
        classifier: nn.Module,
        dataset: Dataset | ImageFolder,
        target: Dataset | ImageFolder | None = None,
    ) -> Objective:
        """The objective of `text` with these options; raises ValueError as `build.build_objective`."""
        from robustperf.cli.build import build_kernel, build_objective

        variation = None if self.kernel is None else build_kernel(self.kernel)
        return build_objective(text, variation, self.k, weight, classifier, shape_of(dataset)[0], target)

    def fit(
        self,
        classifier: nn.Module,
        objective: Objective,
        dataset: Dataset | ImageFolder,
        *,
        out: Path,
        validation: float | None,
        log_with: str | None = None,
    ) -> Fitted:
        """`training.fit` with these options."""
        from robustperf.training import fit

        rate = None if self.lr is None else parse_rate(self.lr)
        return fit(
            classifier, objective, dataset, validation=validation, epochs=self.epochs, batch_size=self.batch_size,
            optimizer=self.optimizer, lr=rate, clip=self.clip, mixed_precision=self.mixed_precision, seed=self.seed,
            out=out, resume=self.resume, checkpoint_steps=self.checkpoint_steps, workers=self.workers,
            log_with=log_with, cpu=self.cpu,
        )  # fmt: skip


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with the fields of `TrainingOptions` as options, in the place of its parameter `options`."""
    types = get_type_hints(command, include_extras=True) | get_type_hints(TrainingOptions, include_extras=True)
    shared = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default)
        for field in fields(TrainingOptions)
    ]
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        own = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        parameters += shared if name == "options" else [own]

    @wraps(command)
    def expanded(**given: Any) -> None:
        command(
            options=TrainingOptions(**{field.name: given.pop(field.name) for field in fields(TrainingOptions)}), **given
        )

    typed = [parameter.replace(annotation=types[parameter.name]) for parameter in parameters]
    expanded.__signature__ = inspect.Signature(typed)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in typed}
    del expanded.__wrapped__  # type: ignore[attr-defined]  # typer reads the signature above, not the command's
    return expanded


def parse_rate(text: str) -> Rate:
    """The learning rate of a text such as 0.05, 0.05:0.001 or 0=1e-3,5=1e-4; `fit` checks its values."""
    try:
        if "=" in text:
            pairs = [pair.split("=") for pair in text.split(",")]
            rates = {int(epoch): float(rate) for epoch, rate in pairs}
            if len(rates) != len(pairs):
                raise ValueError("an epoch is repeated")
            return rates
        if ":" in text:
            first, last = map(float, text.split(":"))
            return first, last
        return float(text)
    except ValueError:
        raise ValueError(
            "lr: expected a rate such as 0.05, a first and a last rate such as 0.05:0.001, or rates by epoch such as "
            f"0=1e-3,5=1e-4, got {text!r}"
        ) from None
