"""Times of `import robustperf` and of the command line's help compared with `import torch`, each in its own process.

    python -m benchmarks.speed.startup [--out DIR]

The library imports its parts when they are first used; "all of robustperf" uses every public name once. Each figure
includes the start of Python.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from ..common.cases import OURS, Case
from ..common.options import add_timing, parse, parser
from ..common.report import Report
from ..common.timing import Call, interleave

IMPORTS = {
    "Python alone": "pass",
    "import torch": "import torch",
    "import robustperf": "import robustperf",
    "import torch, then all of robustperf": "import torch, robustperf as rp\nfor name in dir(rp): getattr(rp, name)",
}
COMMANDS = {
    "robustperf --help": ["--help"],
    "robustperf --version": ["--version"],
    "robustperf margins --atacks fgsm": ["margins", "--atacks", "fgsm"],
    "robustperf margins --help": ["margins", "--help"],
}


def process(*command: str) -> Call:
    return lambda: subprocess.run([sys.executable, *command], capture_output=True, check=False)


def cases(quick: bool) -> list[Case]:
    """The time of `import torch` is what ours is compared with."""

    def make(name: str) -> dict[str, Call]:
        return {OURS: process("-c", IMPORTS[name]), "import torch": process("-c", IMPORTS["import torch"])}

    names = [] if quick else ["import robustperf", "import torch, then all of robustperf"]
    return [Case(f"startup, {name}", partial(make, name), baseline="import torch") for name in names]


def main() -> None:
    options = parser(__doc__)
    add_timing(options)
    arguments = parse(options)

    calls = {name: process("-c", code) for name, code in IMPORTS.items()}
    calls |= {name: process("-m", "robustperf.cli", *options) for name, options in COMMANDS.items()}
    times = interleave(calls, arguments.repeats, warmup=1)
    torch_alone = times["import torch"]
    report = Report("startup", "Import and start, medians over processes", arguments.output)
    for name, seconds in times.items():
        report.add(
            case=name,
            seconds=seconds,
            **{"times import torch": seconds / torch_alone, "seconds more than import torch": seconds - torch_alone},
        )
    report.show(bars=("case", "seconds"))


if __name__ == "__main__":
    main()
