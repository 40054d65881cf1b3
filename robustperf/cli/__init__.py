"""The `robustperf` command: one file a subcommand."""

from __future__ import annotations

import io
import re
import sys

import typer
from torch import distributed

from robustperf import check
from robustperf.cli import data, demo, evaluate, info, margins, nuisance, sweep, train, transfer

app = typer.Typer(
    help="How robust is this classifier? Margins, margin curves and robust training.", no_args_is_help=True,
    pretty_exceptions_enable=False, add_completion=False,
)
app.command()(demo.demo)
app.command()(train.train)
app.command()(sweep.sweep)
app.command()(evaluate.evaluate)
app.command()(margins.margins)
app.command()(transfer.transfer)
app.command()(info.info)
app.add_typer(data.app, name="data")
app.add_typer(nuisance.app, name="nuisance")


_OUT_OF_MEMORY = re.compile("allocate memory|not enough memory|out of memory", re.IGNORECASE)  # torch's allocators


def main() -> None:
    """Runs the command line; a wrong input, or a loss that is no number, is one line on stderr and exit code 1, not a
    traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    clean = False
    try:
        app()
    except SystemExit as end:
        clean = not end.code
        raise
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        print(f"robustperf: {error}", file=sys.stderr)
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError | RecursionError) or _OUT_OF_MEMORY.search(str(error))):
            raise
        print(f"robustperf: {type(error).__name__}: {check.line_of(error)}", file=sys.stderr)
        sys.exit(1)
    finally:
        if distributed.is_available() and distributed.is_initialized():
            # without it gloo's threads may abort the exit; in it nccl may wait for a process that has failed
            if clean or distributed.get_backend() == "gloo":
                distributed.destroy_process_group()
