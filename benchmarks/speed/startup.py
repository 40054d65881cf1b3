"""How long `import robustperf` and the command line's help take, beside `import torch`: each in a process of its own.

    python benchmarks/speed/startup.py [--out DIR]

The library imports its parts when they are first used; "all of it" uses every public name once. Python's own start is
part of each figure.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import Report, interleave, parser

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
    arguments = parser(__doc__.splitlines()[0]).parse_args()

    def process(*command: str):
        return lambda: subprocess.run([sys.executable, *command], capture_output=True, check=False)

    calls = {name: process("-c", code) for name, code in IMPORTS.items()}
    calls |= {name: process("-m", "robustperf.cli", *options) for name, options in COMMANDS.items()}
    times = interleave(calls, arguments.repeats, warmup=1)
    torch_alone = times["import torch"]
    report = Report("startup", "Import and start, medians of whole processes", arguments.out)
    for name, seconds in times.items():
        report.add(
            what=name,
            seconds=seconds,
            **{"beside import torch": seconds / torch_alone, "seconds beyond it": seconds - torch_alone},
        )
    report.show(bars=("what", "seconds"))


if __name__ == "__main__":
    main()
