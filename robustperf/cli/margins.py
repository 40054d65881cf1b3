"""`robustperf margins`: the margins of a trained classifier on a data set."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustperf.cli.options import (
    Checkpoint,
    Classes,
    Data,
    DataRoot,
    Domain,
    Limit,
    Model,
    Resume,
    Rgb,
    Size,
    Split,
    draw_picture,
    load_data,
    load_network,
    plain,
    say,
    shape_of,
    usable_device,
    weights_digest,
)
from robustperf.files import atomic_write, lock_folder, reporting_saved, user_path
from robustperf.names import DEFAULT_ATTACKS

if TYPE_CHECKING:
    import torch
    from accelerate import PartialState
    from rich.console import Console
    from rich.table import Table
    from torch import nn

    from robustperf.attacks import Attack
    from robustperf.data import Dataset, ImageFolder
    from robustperf.robustness import MarginCurve, Margins
    from robustperf.robustness.margin_run import MarginRun

CONFIDENCE = 0.95


class Labels(str, Enum):
    model = "model"
    true = "true"


def margins(
    out: Annotated[Path, typer.Option(metavar="DIR", parser=user_path, help="The folder for the results.")],
    data: Data,
    checkpoint_path: Checkpoint = None,
    data_root: DataRoot = None,
    split: Split = "test",
    domain: Domain = None,
    classes: Classes = None,
    limit: Limit = None,
    size: Size = None,
    rgb: Rgb = False,
    model: Model = None,
    attacks: Annotated[
        str, typer.Option(help="'tibo', 'fast' or 'strong', or attacks such as 'fgsm,pgd(eps=2,steps=20),bg'.")
    ] = DEFAULT_ATTACKS,
    norm: Annotated[str, typer.Option(help="Of the distances: 0 (the number of changed values), 1, 2 or inf.")] = "2",
    lattice: Annotated[
        str | None,
        typer.Option(
            metavar="STEP",
            help="Search points that are whole steps from black, such as 1/255 (or 0.0039): they survive being saved "
            "as 8-bit images.",
        ),
    ] = None,
    labels: Annotated[
        Labels,
        typer.Option(
            help="Change the model's own label (T postulate P2), or the true label; then a misclassified point has "
            "margin 0."
        ),
    ] = Labels.model,
    batch_size: Annotated[int, typer.Option(min=1, help="Points per batch.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the attacks' random starts.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda; under torchrun each process uses its own GPU.")] = "cpu",
    keep_points: Annotated[bool, typer.Option("--keep-points", help="Also write the adversarial examples.")] = False,
    resume: Resume = False,
) -> None:
    """Find every point's margin with an ensemble of attacks and a line search, and draw the margin curve.

    Under `torchrun` the processes share the batches.
    """
    from robustperf import check
    from robustperf.attacks.named import attacks_of

    norm_value = check.norm(norm, zero=True)
    step = None if lattice is None else lattice_step(lattice)
    ensemble = attacks_of(attacks, norm_value)
    network, size, rgb = load_network(checkpoint_path, model, size, rgb)
    dataset = load_data(data, split, data_root, domain=domain, classes=classes, limit=limit, size=size, rgb=rgb)
    settings = {
        "checkpoint": weights_digest(checkpoint_path, model, network),
        "split": split,
        "network": model or getattr(network, "architecture", None),
    }
    report(
        network.to(usable_device(device)),
        dataset,
        ensemble,
        norm_value,
        out,
        lattice=step,
        labels=labels.value,
        batch_size=batch_size,
        seed=seed,
        keep_points=keep_points,
        resume=resume,
        settings=settings,
    )


def lattice_step(text: str) -> float:
    """The step of `text`, a number or a fraction such as 1/255; ValueError for another."""
    try:
        step = float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError, OverflowError):
        step = math.nan
    if not 0 < step <= 1:
        raise ValueError(f"lattice: expected a step above 0 and at most 1, such as 1/255 or 0.0039, got {text!r}")
    return step


def report(
    model: nn.Module,
    dataset: Dataset | ImageFolder,
    attacks: list[Attack],
    norm: float,
    out: Path,
    *,
    lattice: float | None = None,
    labels: str = "model",
    batch_size: int = 256,
    seed: int = 0,
    keep_points: bool = False,
    resume: bool = False,
    settings: dict[str, Any] | None = None,
    console: Console | None = None,
) -> None:
    """Finds the margins batch by batch and saves each, then prints the table and writes the files.

    With n processes each takes every n-th batch; the batches are those of a single process. The main process prints,
    and writes everything but the batches.
    """
    import torch
    from accelerate.utils import gather_object
    from rich.console import Console
    from rich.progress import Progress

    from robustperf import plot, processes
    from robustperf.data.batches import load_batches
    from robustperf.progress import columns
    from robustperf.robustness import MarginCurve
    from robustperf.robustness.lattice import LatticeSearch, Search
    from robustperf.robustness.margins import MarginSearch
    from robustperf.training.evaluate import check_takes

    check_takes(model, "data", dataset)
    described = plain({
        "data": dataset.name, "points": len(dataset), "shape": shape_of(dataset), "labels": labels, "norm": norm,
        "seed": seed, "batch_size": batch_size, "keep_points": keep_points,
        "attacks": [{"name": attack.name, **asdict(attack)} for attack in attacks],
        **({} if lattice is None else {"lattice": lattice}), **(settings or {}),
    })  # fmt: skip
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    keep = keep_points or lattice is not None
    search: Search = MarginSearch(model, attacks, norm, key=seed, batch_size=batch_size, keep_points=keep)
    if lattice is not None:
        search = LatticeSearch(search, lattice, keep_points=keep_points)
    process = processes.join(cpu=device.type == "cpu")
    parts = {int(rows[0]): rows for rows in torch.arange(len(dataset)).split(batch_size)}
    console = console or Console(quiet=not process.is_main_process)
    with _opened(out, described, parts, process, resume) as (run, kept):
        if kept:
            console.print(f"{kept} of {len(parts)} batches were done before.")

        def finished() -> int:
            """The number of points done by all processes."""
            return sum(len(rows) for start, rows in parts.items() if run.done(start))

        def saved() -> str:
            done = sum(run.done(start) for start in parts)
            return f"{done} of {len(parts)} batches are saved in {out}; --resume continues from them"

        began, correct = time.perf_counter(), 0
        try:
            with Progress(*columns("points"), console=console) as bar:
                task = bar.add_task("margins", total=len(dataset), completed=finished())
                own = list(parts.values())[process.process_index :: process.num_processes]
                for rows, (x, y, index) in zip(own, load_batches(dataset, own, device), strict=True):
                    correct += _correct(model, x, y)
                    start = int(rows[0])
                    if not run.done(start):
                        (part,) = search.stream(x, labels=y if labels == "true" else None, index=index)
                        with reporting_saved(saved):
                            run.keep(start, part)
                    bar.update(task, completed=finished())
                correct = sum(gather_object([correct]))  # waits for the other processes
                bar.update(task, completed=finished())
        except KeyboardInterrupt:
            say(console, f"Interrupted. {saved()}.")
            raise typer.Exit(130) from None
        if not process.is_main_process:
            return
        seconds = time.perf_counter() - began
        files = {"curve": out / "margins.png", "margins": run.result, "summary": out / "summary.json"}
        with reporting_saved(saved):
            found = run.collect(parts)
            curve = MarginCurve.from_margins(found)
            summary = _summary(found, curve, correct / len(dataset), seconds, kept)
            with atomic_write(files["summary"]) as partial:
                partial.write_text(json.dumps({**described, **plain(summary)}, indent=1) + "\n")
        console.print(_table(f"Margins on {dataset.name}, {len(dataset)} points, norm {norm:g}", summary, len(dataset)))
        for message in found.diagnostics.messages if found.diagnostics else ():
            say(console, f"warning: {message}")
        if not draw_picture(
            plot.margin_curves, {dataset.name: curve}, path=files["curve"], confidence=CONFIDENCE, norm=norm
        ):
            del files["curve"]
        for what, path in files.items():
            say(console, f"{what:>8}: {path}")


@contextmanager
def _opened(
    out: Path, described: dict[str, Any], starts: Iterable[int], process: PartialState, resume: bool
) -> Iterator[tuple[MarginRun, int]]:
    """The run in the folder `out`, locked for these processes, and the number of its batches saved before, as the main
    process counts them."""
    from accelerate.utils import gather_object

    from robustperf.robustness.margin_run import MarginRun

    with ExitStack() as stack:
        run, kept, fault = None, 0, None
        if process.is_main_process:
            try:
                stack.enter_context(lock_folder(out))
                run = MarginRun(out, described, resume=resume)
                kept = sum(run.done(start) for start in starts)
            except (OSError, ValueError) as error:
                fault = error
        fault = gather_object([fault])[0]  # the others wait for the folder, and fail if the main process does
        if fault is not None:
            raise fault
        yield (MarginRun(out, described, resume=True) if run is None else run), kept


def _correct(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    import torch

    from robustperf.classifier import evaluating, logits_of

    with evaluating(model), torch.no_grad():
        return int((logits_of(model, x).argmax(1) == y).sum())


def _summary(found: Margins, curve: MarginCurve, accuracy: float, seconds: float, kept: int) -> dict[str, Any]:
    import torch

    from robustperf import __version__

    low, high = curve.band(CONFIDENCE).area
    return {
        "accuracy": accuracy,
        "area": curve.area, "area_low": low, "area_high": high, "confidence": CONFIDENCE, "upper": curve.upper,
        "median_margin": curve.median,
        "not_found": curve.missing,
        "diagnostics": None if found.diagnostics is None else {
            **asdict(found.diagnostics), "fractions": found.diagnostics.fractions,
            "messages": found.diagnostics.messages},
        "closest_by_attack": found.fractions,
        "evaluations": found.evaluations.double().mean().item(),
        "attack_evaluations": found.attack_evaluations.double().sum(0).mean().item(),
        "seconds": seconds, "batches_kept_from_before": kept,
        "robustperf": __version__, "torch": torch.__version__,
    }  # fmt: skip


def _table(title: str, summary: dict[str, Any], points: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), show_header=False)
    table.add_row("accuracy", f"{summary['accuracy']:.2%}")
    table.add_row("R, area under the margin curve", f"{summary['area']:.4f}")
    table.add_row(
        f"  {summary['confidence']:.0%} confidence band",
        f"{summary['area_low']:.4f} to {summary['area_high']:.4f} (over [0, {summary['upper']:g}])",
    )
    table.add_row("median margin", f"{summary['median_margin']:.4f}")
    for name, fraction in summary["closest_by_attack"].items():
        table.add_row(f"closest point from {name}", f"{fraction:.1%}")
    table.add_row(
        "no adversarial example found",
        f"{summary['not_found']} of {points}"
        + " (their margin counts as the largest distance)" * bool(summary["not_found"]),
    )
    table.add_row("model evaluations per point, search", f"{summary['evaluations']:.2f}")
    table.add_row("model evaluations per point, attacks", f"{summary['attack_evaluations']:.2f}")
    table.add_row("seconds", f"{summary['seconds']:.1f}")
    return table
