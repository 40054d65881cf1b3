"""`robustperf data`: list data sets, fetch them, and show their domains."""

import math
import os
from pathlib import Path
from typing import Annotated

import typer

from robustperf.cli.errors import Command
from robustperf.cli.options import DataRoot, Limit, Picture, Split, draw_picture
from robustperf.names import MEASURES, ROOT_VARIABLE, check_name

app: typer.Typer = typer.Typer(help="List data sets, fetch them, and show their domains.", no_args_is_help=True)


@app.command(cls=Command)
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="mnist, fashion-mnist or kmnist (its test part).")],
    data_root: DataRoot = None,
) -> None:
    """Download a data set, resuming an interrupted download; every file is checked by its SHA-256."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from robustperf.data import fetch as fetch_files

    if name == "digits":
        typer.echo("digits comes with scikit-learn: nothing to fetch.")
        return
    if data_root is None:
        raise ValueError(
            f"data_root: expected a folder to fetch into (or the environment variable {ROOT_VARIABLE}), got none"
        )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def progress(file: str, done: int, total: int) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=total)
            bars.update(tasks[file], completed=done)

        paths = fetch_files(name, data_root, progress)
    for path in paths:
        typer.echo(path)


@app.command("list", cls=Command)
def list_(data_root: DataRoot = None) -> None:
    """Show each data set with its number of points, or its missing files. The files are read, so damage is reported."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from robustperf.data.load import NAMES, SPLITS

    table = Table("data set", title=None if data_root is None else Text(os.fspath(data_root)))
    for split in SPLITS:
        table.add_column(split, overflow="fold")
    for name in NAMES:
        table.add_row(name, *(Text(_count(name, split, data_root)) for split in SPLITS))
    Console().print(table)


@app.command("domains", cls=Command)
def domains_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set, an npz file or a folder of images.")],
    split: Split = "test",
    by: Annotated[str, typer.Option(help=f"The measure: {' or '.join(MEASURES)}.")] = "brightness",
    limit: Limit = None,
    out: Picture = Path("domains.png"),
    data_root: DataRoot = None,
) -> None:
    """Show the distribution of brightness or contrast, with the levels low, medium and high (R Table 10)."""
    from rich.bar import Bar
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from robustperf import plot
    from robustperf.data import ImageFolder, domains, load

    check_name("by", by, MEASURES)
    plot.check_path(out)
    dataset = load(name, split, data_root)
    dataset = dataset if limit is None else dataset.limit(limit)
    if isinstance(dataset, ImageFolder):
        dataset = dataset.read()
    values = domains.MEASURES[by](dataset.x)
    if not len(values):
        raise ValueError(f"{dataset.name}: expected at least one image, got none")
    levels = domains.thresholds(dataset.name, by)
    edges, counts = domains.histogram(values)
    title = f"{dataset.name} ({split}): {by} of {len(values):,} images"
    console = Console()
    table = Table("from", "below", "images", "", "domains" if levels else "", title=Text(title), box=SIMPLE_HEAD)
    for column in table.columns[:3]:
        column.justify = "right"
    for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True):
        inside = [level for level, (above, below) in levels.items() if above < high and low < below]
        bar = Bar(counts.max().item(), 0, count, width=40)
        table.add_row(str(low), str(high), f"{count:,}", bar, ", ".join(inside))
    console.print(table)
    if levels:
        table = Table("domain", "above", "below", "images", box=SIMPLE_HEAD)
        for level, (above, below) in levels.items():
            bounds = (f"{bound:g}" if math.isfinite(bound) else "" for bound in (above, below))
            table.add_row(level, *bounds, f"{int(((values > above) & (values < below)).sum()):,}")
        console.print(table)
    if draw_picture(plot.domain_overview, dataset.x, values, edges, by, levels, path=out, title=title):
        console.print(Text(f"figure: {out}"), soft_wrap=True)


def _count(name: str, split: str, data_root: Path | None) -> str:
    """The number of points, or the reason why there is none."""
    from robustperf.data.load import load, missing_files

    if name != "digits" and data_root is None:
        return "no --data-root"
    try:
        if missing := missing_files(name, split, data_root):
            return "missing " + ", ".join(os.path.relpath(path, data_root) for path in missing)
        return f"{len(load(name, split, data_root)):,}"
    except (OSError, ValueError, ImportError) as error:
        return str(error)
