"""`robustperf evaluate`: the accuracy of a trained classifier on each of several domains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from robustperf.cli.options import (
    DOMAIN_HELP,
    Checkpoint,
    Classes,
    Cpu,
    Data,
    DataRoot,
    Limit,
    Model,
    Rgb,
    Size,
    Split,
    Workers,
    load_data,
    load_network,
    plain,
    say,
    shape_of,
    weights_digest,
)
from robustperf.files import atomic_write, user_path


def evaluate(
    data: Data,
    checkpoint_path: Checkpoint = None,
    data_root: DataRoot = None,
    split: Split = "test",
    domain: Annotated[
        list[str] | None,
        typer.Option(metavar="DOMAIN", help="A row of the table, or all images; " + DOMAIN_HELP),
    ] = None,
    classes: Classes = None,
    limit: Limit = None,
    size: Size = None,
    rgb: Rgb = False,
    model: Model = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 256,
    workers: Workers = 0,
    cpu: Cpu = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=user_path, help="Write the results there, as JSON.")
    ] = None,
) -> None:
    """Measure top-1 and top-5 accuracy and the mean loss (R section 6); under `torchrun` on several processes."""
    import torch
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from robustperf import __version__, processes, training
    from robustperf.training.evaluate import check_takes

    if out is not None and not out.parent.is_dir():
        raise FileNotFoundError(f"out: expected a file in a folder that exists, got {out}")
    network, size, rgb = load_network(checkpoint_path, model, size, rgb)
    # load all of them first: a wrong one fails before any work
    datasets = {
        each: load_data(data, split, data_root, domain=each, classes=classes, limit=limit, size=size, rgb=rgb)
        for each in domain or [None]
    }
    for dataset in datasets.values():
        check_takes(network, "data", dataset)
    process = processes.join(cpu)
    console = Console(quiet=not process.is_main_process)
    network.to(torch.device("cpu") if cpu else process.device)

    table = Table("domain", title=Text(f"{checkpoint_path or model} on {data} ({split})"))
    for column in ("points", "top-1", "top-5", "mean loss"):
        table.add_column(column, justify="right")
    rows = []
    for each, dataset in datasets.items():
        with console.status(f"evaluating {dataset.name}"):
            found = training.evaluate(network, dataset, batch_size=batch_size, workers=workers)
        row = {
            "domain": each,
            "points": len(dataset),
            "shape": shape_of(dataset),
            "top1": found.top(1),
            "top5": found.top(5),
            "loss": found.loss.mean().item(),
        }
        table.add_row(
            each or "all images", f"{row['points']:,}", f"{row['top1']:.2%}", f"{row['top5']:.2%}", f"{row['loss']:.4f}"
        )
        rows.append(row)
    console.print(table)
    if out is not None and process.is_main_process:
        facts = {
            "checkpoint": weights_digest(checkpoint_path, model, network),
            "data": data,
            "split": split,
            "classes": classes,
            "domains": rows,
            "robustperf": __version__,
            "torch": torch.__version__,
        }
        with atomic_write(out) as partial:
            partial.write_text(json.dumps(plain(facts), indent=1) + "\n")
        say(console, f"results: {out}")
