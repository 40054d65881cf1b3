"""Checks and measures every CUDA and Triton kernel on a machine with a GPU, in two passes of a few minutes.

    python -m benchmarks.gpu --pass correctness --out DIR    # within 5 minutes on 16 cores
    python -m benchmarks.gpu --pass figures --out DIR        # within 6 minutes

Run from the root of the repository. Writes DIR/gpu.json, DIR/gpu.md and DIR/logs.tgz after every part: each time over
its floor, the targets, the outcome of the tests, what could not run and why, what was not reached, and all output of
the parts. With `--device cpu --small` the same parts run without a GPU, on the backends native and reference, which
only shows that the command works. README.md in this folder says how to prepare for another machine.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.gpu.checks import Place, describe, prebuilt
from benchmarks.gpu.passes import BUILD, PASSES, START, choose, run, scaled, seconds
from benchmarks.gpu.processes import BACKENDS, CouldNotRun, stop_all
from benchmarks.gpu.results import Results


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    options.add_argument("--pass", dest="which", choices=PASSES, required=True)
    options.add_argument("--out", type=Path, required=True, help="folder for gpu.json, gpu.md and logs.tgz")
    options.add_argument("--parts", nargs="+", help="only these parts of the pass")
    options.add_argument(
        "--modules",
        type=Path,
        help="folder of prebuilt modules, which are copied into the package; "
        "without it those in the package are used, and missing ones are built",
    )
    options.add_argument("--seconds", type=float, help="scales all limits so that the run ends after this time")
    options.add_argument("--device", choices=BACKENDS, default="cuda")
    options.add_argument("--small", action="store_true", help="sizes that only show that the code runs")
    parsed = options.parse_args(arguments)
    if parsed.seconds is not None and not parsed.seconds > 0:
        options.error(f"--seconds: expected a number above 0, got {parsed.seconds:g}")
    return parsed


def main(arguments: list[str] | None = None) -> int:
    began, options = time.monotonic(), parse(arguments)
    with TemporaryDirectory(prefix="robustperf-gpu-") as name:
        folder = Path(name)
        place = Place(options.device, options.small, folder, os.cpu_count() or 1, options.modules)
        stages = PASSES[options.which](place)
        total = seconds(choose(stages, None))
        factor = (options.seconds or total) / total
        try:
            stages = scaled(choose(stages, options.parts), factor)
            if options.modules:
                prebuilt(options.modules, options.device)
            machine = describe(folder, (START + BUILD) * factor)  # a first import of torch can take long
            if options.device == "cuda" and machine["gpu"] is None:
                raise CouldNotRun(
                    "torch finds no GPU here: nothing is measured and nothing is written; "
                    "--device cpu --small shows that the command works"
                )
        except (CouldNotRun, ValueError) as error:
            print(error, file=sys.stderr)
            return 2
        where = machine["gpu"] if options.device == "cuda" else "a CPU: a trial of the command, without figures"
        results = Results(
            options.out,
            f"{options.which.capitalize()} on {where}",
            BACKENDS[options.device],
            machine,
            [(part.name, part.limit) for stage in stages for part in stage],
            folder,
        )
        for number in (signal.SIGTERM, signal.SIGINT):  # finished work is written, the rest reported as not run
            signal.signal(number, lambda *_: stop_all())
        ends = began + total * factor
        run(stages[:1], results, ends - sum(max(part.limit for part in stage) for stage in stages[1:]))
        if machine["instruction_set"] is None:  # which is known once the package is built
            with suppress(CouldNotRun):
                results.machine = describe(folder, (START + BUILD) * factor)  # a first import of torch can take long
        run(stages[1:], results, ends)
        print("\n".join(results.targets() + results.parts_table()))
    print(
        f"{options.out / 'gpu.md'}: {len(results.rows['failures'])} failures, "
        f"{len(results.rows['could_not_run'])} could not run, "
        f"{sum(len(row['names']) for row in results.rows['not_reached'])} not reached"
    )
    return 1 if results.rows["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
