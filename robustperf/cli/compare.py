"""`robustperf compare`: one page about several trained classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustperf.cli.options import (
    Data,
    DataRoot,
    Domain,
    Limit,
    Model,
    Rgb,
    Size,
    Split,
    command_line,
    is_library,
    load_data,
    load_network,
    usable_device,
    weights_digest,
)
from robustperf.cli.report import (
    Attacks,
    BatchSize,
    Confidence,
    Corruptions,
    Device,
    Folder,
    KernelTexts,
    Norms,
    Out,
    Resume,
    Samples,
    Seed,
    built,
    interruptible,
    places,
    written,
)
from robustperf.files import user_path

if TYPE_CHECKING:
    from torch import nn


def compare(
    context: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Two or more: safetensors files, timm:NAME, hf:NAME, torchvision:NAME or onnx:FILE. The others are "
            "compared with the first.",
        ),
    ],
    out: Out,
    data: Data,
    data_root: DataRoot = None,
    split: Split = "test",
    domain: Domain = None,
    limit: Limit = None,
    size: Size = None,
    rgb: Rgb = False,
    model: Model = None,
    norms: Norms = None,
    attacks: Attacks = None,
    kernels: KernelTexts = None,
    corruptions: Corruptions = None,
    samples: Samples = 100,
    confidence: Confidence = 0.95,
    batch_size: BatchSize = 256,
    seed: Seed = 0,
    device: Device = "cpu",
    folder: Folder = None,
    resume: Resume = False,
) -> None:
    """Write one HTML page that compares models at the same points: margin curves, random changes, and differences with
    paired confidence intervals. --model makes the networks of the files."""
    from rich.console import Console

    from robustperf import reports

    out, folder = places(out, folder)
    chosen = built(kernels)
    if len(models) < 2 or len(set(models)) < len(models):
        raise ValueError(f"models: expected at least two different ones, got {', '.join(models)}")
    networks, size, rgb = load_networks(models, model, size, rgb)
    digests = {
        f"weights of {text}, SHA-256": weights_digest(*_named(text, model), network)
        for text, network in networks.items()
    }
    dataset = load_data(data, split, data_root, domain=domain, limit=limit, size=size, rgb=rgb)
    place = usable_device(device)
    console = Console()
    with interruptible(console, folder):
        found = reports.compare(
            {text: network.to(place) for text, network in networks.items()}, dataset, norms=norms or reports.NORMS,
            attacks=attacks, kernels=chosen, corruptions=corruptions, samples=samples, confidence=confidence, seed=seed,
            batch_size=batch_size, folder=folder, resume=resume, progress=True, facts=digests | {"split": split},
            command=command_line(context),
        )  # fmt: skip
        written(console, found, out, folder)


def load_networks(
    models: list[str], model: str | None, size: int | None, rgb: bool
) -> tuple[dict[str, nn.Module], int | None, bool]:
    """(the networks by their texts, the image size that all take, whether they take RGB images).

    Models of other libraries resize images, so that networks of a fixed size decide, if there are any. Raises
    ValueError where they take images of different sizes and `size` is None.
    """
    networks, sizes = {}, {}
    for text in models:
        networks[text], sizes[text], of_rgb = load_network(*_named(text, model), size, rgb)
        rgb = rgb or of_rgb
    fixed = {text: each for text, each in sizes.items() if not is_library(text) and each is not None} or sizes
    if len(set(fixed.values())) > 1:
        listed = ", ".join(f"{each} for {text}" for text, each in fixed.items())
        raise ValueError(f"size: expected images of one size, because distances depend on it, got {listed}")
    return networks, next(iter(fixed.values())), rgb


def _named(text: str, model: str | None) -> tuple[Path | None, str | None]:
    """The checkpoint and the model of `load_network` for one of the arguments."""
    return (None, text) if is_library(text) else (user_path(text), model)
