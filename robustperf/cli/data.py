"""`robustperf data`: what data sets are there, and fetching them."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from robustperf.data import fetch as fetch_files
from robustperf.data import load
from robustperf.data.dataset import NAMES, ROOT_VARIABLE, SPLITS, missing_files

app = typer.Typer(help="Data sets: what is there, and fetching them.", no_args_is_help=True)

DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root", metavar="DIR", envvar=ROOT_VARIABLE, help="The folder that holds a folder per data set."
    ),
]


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="mnist, fashion-mnist or kmnist (its test part).")],
    data_root: DataRoot = None,
) -> None:
    """Download a data set, going on where an earlier download stopped; every file is checked against its SHA-256."""
    if name == "digits":
        typer.echo("digits comes with scikit-learn: nothing to fetch.")
        return
    if data_root is None:
        _fail(f"--data-root: expected a folder to fetch into (or the environment variable {ROOT_VARIABLE})")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=Console(stderr=True)) as bars:
            tasks = {}

            def progress(file: str, done: int, total: int) -> None:
                if file not in tasks:
                    tasks[file] = bars.add_task(file, total=total)
                bars.update(tasks[file], completed=done)

            paths = fetch_files(name, data_root, progress)
    except (OSError, ValueError) as error:
        _fail(str(error))
    for path in paths:
        typer.echo(path)


@app.command("list")
def list_(data_root: DataRoot = None) -> None:
    """Show each data set with its number of points, or what is missing. The files are read, so damage shows too."""
    table = Table("data set", title=None if data_root is None else os.fspath(data_root))
    for split in SPLITS:
        table.add_column(split, overflow="fold")
    for name in NAMES:
        table.add_row(name, *(Text(_count(name, split, data_root)) for split in SPLITS))
    Console().print(table)


def _count(name: str, split: str, data_root: Path | None) -> str:
    """The number of points, or in words why there is none."""
    if name != "digits" and data_root is None:
        return "no --data-root"
    try:
        if missing := missing_files(name, split, data_root):
            return "missing " + ", ".join(os.path.join(path.parent.name, path.name) for path in missing)
        return f"{len(load(name, split, data_root)):,}"
    except (OSError, ValueError, ImportError) as error:
        return str(error)


def _fail(message: str) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(1)
