"""The `robustperf` command: one file a subcommand."""

from __future__ import annotations

import sys

import typer

from robustperf.cli import data, demo, info, margins, nuisance

app = typer.Typer(
    help="How robust is this classifier? Margins, margin curves and robust training.", no_args_is_help=True,
    pretty_exceptions_enable=False, add_completion=False,
)
app.command()(demo.demo)
app.command()(margins.margins)
app.command()(info.info)
app.add_typer(data.app, name="data")
app.add_typer(nuisance.app, name="nuisance")


def main() -> None:
    """Runs the command line; a wrong input is one line on stderr and exit code 1, not a traceback."""
    try:
        app()
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"robustperf: {error}", file=sys.stderr)
        sys.exit(1)
