"""Cases of `robustperf bench`: one measurement of the library beside its peers, with the noise of the ratio.

The contenders of a case take turns. Each turn gives the ratio of a contender's time to ours, which a machine that slows
down for a while hardly changes. A case reports the median of these ratios and an interval for it.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from robustperf.check import line_of

from .timing import Call, batch_of, batch_seconds, take_turns

OURS, EAGER, COMPILED = "robustperf", "eager", "compiled"
"""Names of contenders: the library, what a user would write in PyTorch, and that under `torch.compile`."""

LEAST_TURNS, MOST_TURNS, MOST_CALLS = 7, 21, 1000
COVERAGE = 0.95


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        name: the group, a comma, and everything that the time depends on: cases of one name are compared between runs.
        make: prepares the operands and returns the contenders by name, `OURS` and `baseline` among them.
        baseline: the contender whose time over ours is compared between runs.
    """

    name: str
    make: Callable[[], dict[str, Call]]
    baseline: str = EAGER


@dataclass(frozen=True)
class Ratio:
    """A median of ratios with its interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """A measured case.

    Attributes:
        case, baseline: those of the `Case`.
        turns: of each contender.
        ms: the median time of each contender.
        faster: how many times as fast as each other contender we are.
        failed: the contenders that raised, with the reason.
    """

    case: str
    baseline: str
    turns: int = 0
    ms: dict[str, float] = field(default_factory=dict)
    faster: dict[str, Ratio] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def median_with_interval(values: Sequence[float]) -> Ratio:
    """The median, and the closest pair of order statistics that contains the median of the distribution with at least
    95 % probability, whatever the distribution; the whole range of fewer than six values, where no pair does.

    >>> median_with_interval([5, 1, 2, 4, 3, 6, 7, 9, 8])
    Ratio(median=5, low=2, high=8)
    """
    ordered, outside = sorted(values), 0
    count = len(ordered)
    while 2 * sum(math.comb(count, i) for i in range(outside + 2)) / 2**count <= 1 - COVERAGE:
        outside += 1
    return Ratio(statistics.median(ordered), ordered[outside], ordered[-1 - outside])


def measure(case: Case, seconds: float) -> Row:
    """The case's times, in 7 to 21 turns that take about `seconds`.

    What raises is in the row's `failed`; if the preparation or our call does, the row has no times.
    """
    failed: dict[str, str] = {}

    def note(name: str, error: Exception) -> None:
        failed[name] = f"{type(error).__name__}: {line_of(error)}"

    torch.manual_seed(0)
    if "torch._dynamo" in sys.modules:  # loading it takes seconds
        torch.compiler.reset()  # it compiles a function for a few shapes only
    try:
        contenders = case.make()
    except Exception as error:
        note(OURS, error)
        return Row(case.name, case.baseline, failed=failed)
    timed, whole = {}, 0.0
    for name, call in contenders.items():
        try:
            call()  # it may compile
            began = time.perf_counter()
            batch = batch_of([call], "cpu", MOST_CALLS)
            whole += (time.perf_counter() - began) * len(batch)
            timed[name] = partial(batch_seconds, batch, "cpu")
        except Exception as error:
            note(name, error)
    turns = min(max(int(seconds / max(whole, 1e-9)), LEAST_TURNS), MOST_TURNS)
    times = take_turns(timed, turns, note) if OURS in timed else {}
    if OURS not in times:
        return Row(case.name, case.baseline, failed=failed)
    faster = {
        name: median_with_interval([theirs / ours for theirs, ours in zip(each, times[OURS], strict=True)])
        for name, each in times.items()
        if name != OURS
    }
    ms = {name: 1e3 * statistics.median(each) for name, each in times.items()}
    return Row(case.name, case.baseline, turns, ms, faster, failed)
