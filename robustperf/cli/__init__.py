"""The `robustperf` command: one file per subcommand.

The files import what they need in their functions, so that help and errors about options do not wait for torch.
"""

from __future__ import annotations

import gc
import io
import re
import sys
from typing import Annotated

import typer

from robustperf.cli import bench, compare, data, demo, evaluate, info, margins, nuisance, report, sweep, train, transfer
from robustperf.cli.errors import INPUT_ERRORS, Command

app: typer.Typer = typer.Typer(
    help="How robust is this classifier? Margins, margin curves and robust training.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command(cls=Command)(demo.demo)
app.command(cls=Command)(train.train)
app.command(cls=Command)(sweep.sweep)
app.command(cls=Command)(evaluate.evaluate)
app.command(cls=Command)(margins.margins)
app.command(cls=Command)(report.report)
app.command(cls=Command)(compare.compare)
app.command(cls=Command)(transfer.transfer)
app.command(cls=Command)(bench.bench)
app.command(cls=Command)(info.info)
app.add_typer(data.app, name="data")
app.add_typer(nuisance.app, name="nuisance")


def _version(asked: bool) -> None:
    if asked:
        from robustperf import __version__

        typer.echo(f"robustperf {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


_OUT_OF_MEMORY = re.compile("allocate memory|not enough memory|out of memory", re.IGNORECASE)  # torch's allocators


def main() -> None:
    """Runs the command line.

    Wrong input, or a loss that is not finite, ends with one line on stderr and exit code 1, not with a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name may contain what the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    clean = False
    try:
        app()
    except SystemExit as end:
        clean = not end.code
        raise
    except INPUT_ERRORS as error:
        print(f"robustperf: {error}", file=sys.stderr)
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError | RecursionError) or _OUT_OF_MEMORY.search(str(error))):
            raise
        from robustperf.check import line_of

        print(f"robustperf: {type(error).__name__}: {line_of(error)}", file=sys.stderr)
        sys.exit(1)
    finally:
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            # without it gloo's threads may abort the exit; in it nccl may wait for a process that has failed
            if clean or distributed.get_backend() == "gloo":
                distributed.destroy_process_group()
                gc.collect()  # a cycle of DistributedDataParallel holds the group
