"""Command-line options that the benchmarks share, and where a run's results go."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from robustperf import _native
from robustperf.machine import processor

from .machine import slug

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
CHECKPOINT = ROOT / "runs" / "mnist-small-cnn.safetensors"
# none of them changes what a row measures
_NEUTRAL = {"out", "json", "repeats", "threads", "data_root", "checkpoint", "runs", "all_instruction_sets"}


@dataclass
class Output:
    """Where the reports of one run go.

    Attributes:
        folder: for a JSON file, a table and a picture of each report; None for nowhere.
        json: a file for all reports of the run; None for none.
        comparable: whether the options measure what the figures in `benchmarks/README.md` are of.
        reports: those shown so far, by name.
    """

    folder: Path | None = None
    json: Path | None = None
    comparable: bool = True
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)


def parser(description: str) -> argparse.ArgumentParser:
    """The options of every benchmark.

    Args:
        description: the module's docstring, whose first paragraph is shown.
    """
    options = argparse.ArgumentParser(
        prog=f"python -m {_program()}",
        description=description.partition("\n\n")[0].replace("\n", " "),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    options.add_argument(
        "--out",
        type=Path,
        nargs="?",
        const=RESULTS / slug(processor()),
        help="folder for the JSON, the table and the picture; without a name the one of this CPU in benchmarks/results",
    )
    options.add_argument("--json", type=Path, help="a file for all rows and the description of the machine")
    return options


def add_timing(options: argparse.ArgumentParser, repeats: int = 21, threads: int | None = None) -> None:
    """The options of the benchmarks that measure times."""
    options.add_argument("--repeats", type=int, default=repeats, help="turns of each contender; medians are reported")
    options.add_argument("--threads", type=int, default=threads or torch.get_num_threads())


def add_data_root(options: argparse.ArgumentParser) -> None:
    """The option of the benchmarks that read a data set."""
    options.add_argument("--data-root", type=Path, help="folder of the data sets; ROBUSTPERF_DATA by default")


def add_mnist_model(options: argparse.ArgumentParser) -> None:
    """The options of the benchmarks on a trained MNIST classifier."""
    add_data_root(options)
    options.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="of MNIST; trained if it does not exist")


def add_instruction_sets(options: argparse.ArgumentParser) -> None:
    """The option of the benchmarks whose figures depend on the instruction set."""
    options.add_argument("--all-instruction-sets", action="store_true", help="run under the narrower ones too")


def parse(
    options: argparse.ArgumentParser, selections: Sequence[str] = (), arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """The parsed options, with an `output`; sets the number of threads.

    Args:
        selections: options that choose rows and do not change what a row measures.
        arguments: those of the command line by default.
    """
    parsed = options.parse_args(arguments)
    if "threads" in parsed:
        torch.set_num_threads(parsed.threads)
    comparable = all(
        value == options.get_default(name)
        for name, value in vars(parsed).items()
        if name not in _NEUTRAL and name not in selections
    )
    parsed.output = Output(parsed.out, parsed.json, comparable)
    return parsed


def run_other_instruction_sets(arguments: argparse.Namespace) -> None:
    """With `--all-instruction-sets`, runs this benchmark once more under each of the others; the file of `--json` then
    has the instruction set in its name."""
    if not arguments.all_instruction_sets:
        return
    again = [argument for argument in sys.argv[1:] if argument != "--all-instruction-sets"]
    for isa in _native.isas():
        if isa != _native.isa():
            json = arguments.json and ["--json", arguments.json.with_stem(f"{arguments.json.stem}_{isa}")]
            command = [sys.executable, "-m", _program(), *again, *(json or [])]  # the last --json counts
            subprocess.run(command, env={**os.environ, "ROBUSTPERF_CPU": isa}, check=True)


def _program() -> str:
    """The module that Python was started with, as `python -m` names it."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return "benchmark" if spec is None else spec.name.removesuffix(".__main__")
