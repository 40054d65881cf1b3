"""Times of `import robustperf` and of the command line's help compared with `import torch`, each in its own process.

    python -m benchmarks.speed.startup [--out DIR]

The library imports its parts when they are first used; "all of robustperf" uses every public name once. Each figure
includes the start of Python.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.common.options import add_timing, parse, parser
from benchmarks.common.report import Report
from benchmarks.common.timing import interleave

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


def main() -> None:
    options = parser(__doc__)
    add_timing(options)
    arguments = parse(options)

    def process(*command: str):
        return lambda: subprocess.run([sys.executable, *command], capture_output=True, check=False)

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
