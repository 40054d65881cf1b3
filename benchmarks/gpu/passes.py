"""The two passes: their parts, the time limit of each, and which run at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import partial
from typing import NamedTuple

from benchmarks.gpu.checks import Place, Rows, build, operations, sanitizer, speed, tests
from benchmarks.gpu.processes import BACKENDS, MIN_SECONDS, CouldNotRun
from benchmarks.gpu.results import Results

REWRITE_SECONDS = 20  # between two writes of the files while a part runs
START, BUILD = 20.0, 90.0  # seconds to describe the machine, and to build both modules on 16 cores
ONLY_BY_NAME = ("initcheck",)


class Part(NamedTuple):
    """`run(limit)` returns rows for `Results.add` within `limit` seconds."""

    name: str
    limit: float
    run: Callable[[float], Rows]


Stage = tuple[Part, ...]
"""Parts that run at the same time."""

SMOKE = {"draws": 15, "projection": 15, "colours": 20}
FIGURES = {"bandwidth": 8, "colours": 45, "best_of_k": 25, "projection": 20, "line_search": 22, "training": 22,
           "draws": 12, "noise": 18, "backward": 20, "rbf": 20}  # fmt: skip
"""Parts of speed.py with their limits in seconds, in their order."""


def correctness(place: Place) -> list[Stage]:
    """300 seconds on 16 cores. The checks share the processor and the GPU; each timing has them alone."""
    first, second = BACKENDS[place.device]
    checks = (
        Part(f"operations {first}", 140, partial(operations, place, first, 1 / 8)),
        # Triton compiles some 250 kernels
        Part(f"operations {second}", 140, partial(operations, place, second, 3 / 8)),
        Part("tests", 140, partial(tests, place, 1 / 2)),
        Part("memcheck", 140, partial(sanitizer, place, "memcheck", 1 / 8)),
    )
    timings = [Part(name, limit, partial(speed, place, name, False)) for name, limit in SMOKE.items()]
    return [(Part("build", BUILD, partial(build, place)),), checks, *_one_by_one(place, timings)]


def figures(place: Place) -> list[Stage]:
    """360 seconds on 16 cores."""
    timings = [Part(name, limit, partial(speed, place, name, not place.small)) for name, limit in FIGURES.items()]
    tools = [(Part(tool, 38, partial(sanitizer, place, tool, 1 / 2)),) for tool in ("racecheck", "initcheck")]
    return [(Part("build", BUILD, partial(build, place)),), *_one_by_one(place, timings), *tools]


def _one_by_one(place: Place, timings: list[Part]) -> list[Stage]:
    """One part a stage; on a CPU, whose times are not used, as many at the same time as there are cores."""
    width = 1 if place.device == "cuda" else place.cores
    return [tuple(timings[start : start + width]) for start in range(0, len(timings), width)]


PASSES = {"correctness": correctness, "figures": figures}


def seconds(stages: Sequence[Stage]) -> float:
    """The sum of the limits, the description of the machine included."""
    return START + sum(_limit(stage) for stage in stages)


def _limit(stage: Stage) -> float:
    return max(part.limit for part in stage)


def choose(stages: Sequence[Stage], parts: Sequence[str] | None) -> list[Stage]:
    """The stages with the build and the parts chosen by name or its first word; ValueError for an unknown part."""
    known = {name for stage in stages for part in stage for name in (part.name, part.name.split()[0])}
    if unknown := [name for name in parts or () if name not in known]:
        raise ValueError(f"--parts: expected some of {', '.join(sorted(known))}, got {', '.join(unknown)}")

    def is_chosen(part: Part) -> bool:
        if parts is None:
            return part.name not in ONLY_BY_NAME
        return part.name == "build" or part.name in parts or part.name.split()[0] in parts

    chosen = [tuple(part for part in stage if is_chosen(part)) for stage in stages]
    return [stage for stage in chosen if stage]


def scaled(stages: Sequence[Stage], factor: float) -> list[Stage]:
    return [tuple(part._replace(limit=part.limit * factor) for part in stage) for stage in stages]


def run(stages: Sequence[Stage], results: Results, ends: float) -> None:
    """Runs one stage after the other until `ends` (of time.monotonic). A part that raises or hangs is reported, and the
    others run.

    A stage may use the time that earlier stages left, but not the limits of later ones.
    """
    for number, stage in enumerate(stages):
        limit = ends - time.monotonic() - sum(_limit(each) for each in stages[number + 1 :])
        with ThreadPoolExecutor(len(stage)) as pool:
            waiting = {pool.submit(_run_part, part, results, limit) for part in stage}
            while waiting:
                done, waiting = wait(waiting, REWRITE_SECONDS, FIRST_COMPLETED)
                for future in done:
                    future.result()
                results.write()


def _run_part(part: Part, results: Results, limit: float) -> None:
    began = time.monotonic()
    if limit < MIN_SECONDS:
        results.part(part.name, None, "not reached: out of time")
        return
    results.part(part.name, None, "did not reach its end")
    outcome = "done"
    try:
        rows = part.run(limit)
        results.add(rows)
        if rows.get("not_reached"):
            outcome = f"{sum(len(row['names']) for row in rows['not_reached'])} not reached"
        elif rows.get("could_not_run"):
            outcome = f"done, except {len(rows['could_not_run'])} of its parts"
    except Exception as error:
        reason = str(error) if isinstance(error, CouldNotRun) else f"{type(error).__name__}: {error}"
        outcome = f"could not run: {reason}"
        results.add({"could_not_run": [{"what": part.name, "reason": reason}]})
    spent = time.monotonic() - began
    results.part(part.name, spent, outcome)
    print(f"{part.name}: {outcome}, {spent:.0f} s", flush=True)
