"""`robustperf margins`: the margins of a trained classifier on a data set."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import time
from dataclasses import asdict
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from torch import nn

from robustperf import check, plot
from robustperf.attacks import BG, FGSM, PGD, Attack
from robustperf.classifier import evaluating, logits_of
from robustperf.cli.data import DataRoot
from robustperf.cli.expression import build_list
from robustperf.data import Dataset, load
from robustperf.files import written_whole
from robustperf.nets import checkpoint
from robustperf.robustness import MarginCurve, Margins
from robustperf.robustness import margins as margins_of
from robustperf.robustness.store import MarginRun

CONFIDENCE = 0.95


class Labels(str, Enum):
    model = "model"
    true = "true"


def margins(
    checkpoint_path: Annotated[Path, typer.Option("--checkpoint", metavar="FILE", help="Weights, a safetensors file.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the results go.")],
    data: Annotated[str, typer.Option(metavar="NAME", help="A data set (see `robustperf data list`) or an npz file.")],
    data_root: DataRoot = None,
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many points only.")] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="What makes the network; needed where the checkpoint's header "
                     "does not name one of robustperf's."),
    ] = None,
    attacks: Annotated[str, typer.Option(help="The ensemble, such as 'fgsm,pgd(eps=2,steps=20),bg'.")] = "fgsm,pgd,bg",
    norm: Annotated[str, typer.Option(help="1, 2 or inf.")] = "2",
    labels: Annotated[Labels, typer.Option(help="Get away from the model's own label (T postulate P2), or from the "
                                           "true one, when a misclassified point has margin 0.")] = Labels.model,
    batch_size: Annotated[int, typer.Option(min=1)] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of the attacks' random starts.")] = 0,
    device: Annotated[str, typer.Option(help="Such as cpu or cuda.")] = "cpu",
    keep_points: Annotated[bool, typer.Option("--keep-points", help="Write the adversarial examples too.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that DIR holds.")] = False,
) -> None:
    """Find every point's margin with an ensemble of attacks and a line search, and draw the margin curve."""
    dataset = load(data, split, data_root)
    dataset = dataset if limit is None else dataset.limit(limit)
    network = checkpoint.load(checkpoint_path, None if model is None else _make(model))
    norm_value = check.norm(norm)
    settings = {
        "checkpoint": hashlib.sha256(checkpoint_path.read_bytes()).hexdigest(),
        "split": split,
    }
    ensemble = build_attacks(attacks, norm_value)
    report(network.to(_device(device)), dataset, ensemble, norm_value, out, labels=labels.value,
           batch_size=batch_size, seed=seed, keep_points=keep_points, resume=resume, settings=settings)


def build_attacks(text: str, norm: float) -> list[Attack]:
    """The attacks of `text`; those that know norms take `norm` unless told otherwise (PGD has no L1: it takes L2)."""
    makers = {
        "fgsm": FGSM,
        "pgd": lambda norm=math.inf if norm == math.inf else 2, **kwargs: PGD(norm, **kwargs),
        "bg": lambda norm=norm, **kwargs: BG(norm, **kwargs),
    }
    try:
        return build_list(text, makers)
    except ValueError as error:
        raise ValueError(f"attacks: {error}") from error


def report(
    model: nn.Module, dataset: Dataset, attacks: list[Attack], norm: float, out: Path, *, labels: str = "model",
    batch_size: int = 256, seed: int = 0, keep_points: bool = False, resume: bool = False,
    settings: dict[str, Any] | None = None, console: Console | None = None,
) -> Margins:
    """Finds the margins part by part, keeping each as it is done, then prints the table and writes the files."""
    if not len(dataset):
        raise ValueError(f"data: {dataset.name} has no points")
    console = console or Console()
    described = _plain({
        "data": dataset.name, "points": len(dataset), "labels": labels, "norm": norm, "seed": seed,
        "batch_size": batch_size, "keep_points": keep_points,
        "attacks": [{"name": attack.name, **asdict(attack)} for attack in attacks],
        **(settings or {}),
    })  # fmt: skip
    run = MarginRun(out, described, resume=resume)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    starts = range(0, len(dataset), batch_size)
    kept = sum(run.done(start) for start in starts)
    if kept:
        console.print(f"{kept} of {len(starts)} batches were done before.")
    began, correct = time.perf_counter(), 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("points"),
               TimeElapsedColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("margins", total=len(dataset))
            for start in starts:
                part = slice(start, start + batch_size)
                x, y = dataset.x[part].to(device), dataset.y[part].to(device)
                correct += _correct(model, x, y)
                if not run.done(start):
                    index = torch.arange(start, start + len(x), device=device)
                    run.keep(start, margins_of(model, x, attacks=attacks, norm=norm, index=index, key=seed,
                                               labels=y if labels == "true" else None, batch_size=batch_size,
                                               keep_points=keep_points))
                bar.advance(task, len(x))
    except KeyboardInterrupt:
        done = sum(run.done(start) for start in starts)
        console.print(f"Interrupted. {done} of {len(starts)} batches are kept in {out}; --resume goes on with them.")
        raise typer.Exit(130) from None
    seconds = time.perf_counter() - began
    found = run.collect(starts)
    curve = MarginCurve.from_margins(found)
    summary = _summary(found, curve, correct / len(dataset), seconds, kept)
    files = {"curve": out / "margins.png", "margins": run.result, "summary": out / "summary.json"}
    plot.margin_curves({dataset.name: curve}, files["curve"], CONFIDENCE, norm)
    with written_whole(files["summary"]) as partial:
        partial.write_text(json.dumps({**described, **_plain(summary)}, indent=1) + "\n")
    console.print(_table(f"Margins on {dataset.name}, {len(dataset)} points, norm {norm:g}", summary, len(dataset)))
    for what, path in files.items():
        console.print(f"{what:>8}: {path}", highlight=False, soft_wrap=True)
    return found


def _correct(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    with evaluating(model), torch.no_grad():
        return int((logits_of(model, x).argmax(1) == y).sum())


def _summary(found: Margins, curve: MarginCurve, accuracy: float, seconds: float, kept: int) -> dict[str, Any]:
    low, high = curve.band(CONFIDENCE).area
    return {
        "accuracy": accuracy,
        "area": curve.area, "area_low": low, "area_high": high, "confidence": CONFIDENCE, "upper": curve.upper,
        "median_margin": curve.median,
        "not_found": curve.missing,
        "closest_by_attack": found.shares,
        "evaluations": found.evaluations.double().mean().item(),
        "attack_evaluations": found.attack_evaluations.double().sum(0).mean().item(),
        "seconds": seconds, "batches_kept_from_before": kept,
        "robustperf": version("robustperf"), "torch": torch.__version__,
    }  # fmt: skip


def _table(title: str, summary: dict[str, Any], points: int) -> Table:
    table = Table(title=title, show_header=False)
    table.add_row("accuracy", f"{summary['accuracy']:.2%}")
    table.add_row("R, area under the margin curve", f"{summary['area']:.4f}")
    table.add_row(f"  {summary['confidence']:.0%} confidence band",
                  f"{summary['area_low']:.4f} to {summary['area_high']:.4f} (over [0, {summary['upper']:g}])")
    table.add_row("median margin", f"{summary['median_margin']:.4f}")
    for name, share in summary["closest_by_attack"].items():
        table.add_row(f"closest point from {name}", f"{share:.1%}")
    table.add_row("no adversarial example found", f"{summary['not_found']} of {points}"
                  + " (their margin counts as the largest distance)" * bool(summary["not_found"]))
    table.add_row("model evaluations a point, search", f"{summary['evaluations']:.2f}")
    table.add_row("model evaluations a point, attacks", f"{summary['attack_evaluations']:.2f}")
    table.add_row("seconds", f"{summary['seconds']:.1f}")
    return table


def _plain(value: Any) -> Any:
    """`value` as strict JSON has it: infinities and NaN as text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _device(text: str) -> torch.device:
    """The device called `text`, if it is one that torch can use here."""
    try:
        device = torch.device(text)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: {text!r} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def _make(path: str) -> nn.Module:
    """The network that MODULE:FUNCTION makes."""
    module, _, function = path.partition(":")
    try:
        made = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"model: expected MODULE:FUNCTION that can be imported, got {path!r}: {error}") from error
    if not isinstance(made, nn.Module):
        raise ValueError(f"model: {path} made a {type(made).__name__}, not a torch.nn.Module")
    return made
