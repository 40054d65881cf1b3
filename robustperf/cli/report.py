"""`robustperf report`: one page about a trained classifier."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustperf.cli.options import (
    KERNELS_HELP,
    Checkpoint,
    Data,
    DataRoot,
    Domain,
    Limit,
    Model,
    Rgb,
    Size,
    Split,
    command_line,
    load_data,
    load_network,
    plain,
    say,
    usable_device,
    weights_digest,
)
from robustperf.files import atomic_write, reporting_saved, user_path

if TYPE_CHECKING:
    from rich.console import Console

    from robustperf.kernel import Kernel
    from robustperf.reports import Comparison, Report

Out = Annotated[Path, typer.Option(metavar="FILE", parser=user_path, help="The page, an .html file.")]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        metavar="DIR",
        parser=user_path,
        help="Where finished parts are saved and summary.json is written; by default FILE without its suffix.",
    ),
]
Norms = Annotated[
    list[str] | None, typer.Option("--norm", help="Of the margins, 0, 1, 2 or inf; repeat it. 2, inf and 1 by default.")
]
Attacks = Annotated[
    str | None,
    typer.Option(help="As for `margins`; 'tibo,fast' by default, or the closed form of a linear classifier."),
]
KernelTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--kernel",
        metavar="SUM",
        help="A kernel, or a sum, for ρ and the accuracy under it; repeat it. By default a rotation, a translation, "
        "brightness, contrast and noise. Kernels: " + KERNELS_HELP,
    ),
]
Corruptions = Annotated[
    bool | None,
    typer.Option("--mnist-c/--no-mnist-c", help="The accuracy under MNIST-C's corruptions; by default of grey images."),
]
Samples = Annotated[int, typer.Option(min=1, help="Draws of each point, for ρ.")]
Confidence = Annotated[float, typer.Option(help="Of intervals and bands, between 0 and 1.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Points per batch.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the attacks' random starts and of the draws.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume the run in the folder.")]


def report(
    context: typer.Context,
    out: Out,
    data: Data,
    checkpoint_path: Checkpoint = None,
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
    examples: Annotated[int, typer.Option(min=0, help="Points shown with their nearest adversarial images.")] = 6,
    confidence: Confidence = 0.95,
    batch_size: BatchSize = 256,
    seed: Seed = 0,
    device: Device = "cpu",
    folder: Folder = None,
    resume: Resume = False,
) -> None:
    """Write one HTML page: accuracy, margins in three norms, the nearest adversarial images, and random changes."""
    from rich.console import Console

    from robustperf import reports

    out, folder = places(out, folder)
    chosen = built(kernels)
    network, size, rgb = load_network(checkpoint_path, model, size, rgb)
    dataset = load_data(data, split, data_root, domain=domain, limit=limit, size=size, rgb=rgb)
    console = Console()
    with interruptible(console, folder):
        found = reports.report(
            network.to(usable_device(device)), dataset, name=str(checkpoint_path or model),
            norms=norms or reports.NORMS, attacks=attacks, kernels=chosen, corruptions=corruptions, samples=samples,
            examples=examples, confidence=confidence, seed=seed, batch_size=batch_size, folder=folder, resume=resume,
            progress=True,
            facts={"weights, SHA-256": weights_digest(checkpoint_path, model, network), "split": split},
            command=command_line(context),
        )  # fmt: skip
        written(console, found, out, folder)


def places(out: Path, folder: Path | None) -> tuple[Path, Path]:
    """(the page, the folder of its run). Raises FileNotFoundError or ValueError for an `out` that cannot be written."""
    if not out.parent.is_dir():
        raise FileNotFoundError(f"out: expected a file in a folder that exists, got {out}")
    if out.is_dir() or out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"out: expected a file that ends in .html, got {out}")
    from robustperf import processes

    if (count := processes.join(cpu=True).num_processes) > 1:
        raise ValueError(f"out: expected one process, which writes {out}, got {count}; `margins` runs on several")
    return out, out.with_suffix("") if folder is None else folder


def built(kernels: list[str] | None) -> dict[str, Kernel] | None:
    """The kernels by their texts; None for the defaults."""
    from robustperf.cli.build import build_kernel

    return {text: build_kernel(text) for text in kernels} if kernels else None


@contextmanager
def interruptible(console: Console, folder: Path) -> Iterator[None]:
    """Ends an interrupted command with a line that says how to resume it."""
    try:
        yield
    except KeyboardInterrupt:
        say(console, f"Interrupted. {_saved(folder)}.")
        raise typer.Exit(130) from None


def written(console: Console, found: Report | Comparison, out: Path, folder: Path) -> None:
    """Writes the page and its summary, and prints where they are."""
    summary = folder / "summary.json"
    with reporting_saved(lambda: _saved(folder)):
        with atomic_write(summary) as partial:
            partial.write_text(json.dumps(plain(found.summary()), indent=1) + "\n")
        found.save(out)
    say(console, repr(found))
    for what, path in {"page": out, "summary": summary}.items():
        say(console, f"{what:>8}: {path}")


def _saved(folder: Path) -> str:
    return f"finished parts are saved in {folder}; --resume continues from them"
