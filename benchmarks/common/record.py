"""The JSON record of `robustperf bench`, and its comparison with an earlier one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robustperf.files import open_regular

from .cases import OURS, Ratio, Row
from .tables import machine_lines, markdown

FORMAT, VERSION = "robustperf bench", 1
LEAST_CHANGE = 1.1
"""A ratio that changes less is no change: two runs of the same code differ by this much, although each agrees with
itself, since memory lies elsewhere and the machine does other work."""

MOST_NOISE = 2.0
"""The upper end of an interval over its lower end, above which a case is not compared: then the machine did so much
else that its load, which differs from run to run, decides the median."""

_SAME = ("processor", "threads", "instruction_set", "python", "torch", "numpy")


@dataclass
class Record:
    """A run.

    Attributes:
        machine: `machine.describe_machine(commit=False)`.
        quick: whether the sizes are those of `--quick`.
        missing: the peers that cannot be imported.
        rows: of the cases that are finished.
        curves: of the scale curves that are finished.
    """

    machine: dict[str, Any]
    quick: bool
    missing: list[str]
    rows: list[Row] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)

    def text(self) -> str:
        """As JSON."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=1) + "\n"


def read(path: Path) -> Record:
    """The record in a file. Raises OSError, or ValueError if the file is not one of this version."""
    with open_regular(path) as file:
        content = file.read()
    try:
        found = json.loads(content)
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"compare: expected a file of `robustperf bench`, got {path}: {_reason(error)}") from error
    if found.get("version") != VERSION:
        raise ValueError(f"compare: expected version {VERSION} of the format, got {found.get('version')!r} in {path}")
    try:
        machine, quick, missing = found["machine"], bool(found["quick"]), [str(each) for each in found["missing"]]
        if not isinstance(machine, dict):
            raise ValueError("its machine is not an object")
        return Record(machine, quick, missing, [_row(row) for row in found["rows"]], list(found["curves"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"compare: {path} is damaged: {_reason(error)}") from error


def _row(found: dict[str, Any]) -> Row:
    row = Row(**{**found, "faster": {name: Ratio(**ratio) for name, ratio in found["faster"].items()}})
    for ratio in row.faster.values():
        if not (0 < ratio.low <= ratio.median <= ratio.high and math.isfinite(ratio.high)):
            raise ValueError(f"the ratio of {row.case} is {ratio}")
    return row


def _reason(error: Exception) -> str:
    return f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)


def table(record: Record) -> str:
    """The record as Markdown."""
    names = list(dict.fromkeys(name for row in record.rows for name in (row.baseline, *row.faster)))
    columns = ["case", "ms", *(f"x {name}" for name in names), "failed"]
    rows = [
        [
            row.case,
            row.ms.get(OURS),
            *(_cell(row.faster.get(name), with_noise=name == row.baseline) for name in names),
            "; ".join(f"{name}: {reason}" for name, reason in row.failed.items()),
        ]
        for row in record.rows
    ]
    lines = ["# robustperf bench" + " --quick" * record.quick, "", *machine_lines(record.machine)]
    lines += [f"- missing: {', '.join(record.missing)}"] if record.missing else []
    lines += ["", f"A column `x NAME` says how many times as fast as NAME {OURS} is."]
    lines += ["", *markdown(columns, rows)] if rows else []
    for curve in record.curves:
        pairs = list(zip(curve["sizes"], curve["values"], strict=True))
        last = [("slope", curve["slope"])] if curve["slope"] is not None else []
        lines += ["", f"{curve['curve']}:", "", *markdown([curve["over"], curve["unit"]], [*pairs, *last])]
    return "\n".join(lines) + "\n"


def _cell(ratio: Ratio | None, with_noise: bool) -> str:
    if ratio is None:
        return ""
    return f"{ratio.median:.3g}" + (f" ({ratio.low:.3g} to {ratio.high:.3g})" if with_noise else "")


@dataclass(frozen=True)
class Change:
    """A case of two records: how many times as fast as its baseline it was and is."""

    case: str
    baseline: str
    before: Ratio
    now: Ratio

    @property
    def beyond_noise(self) -> bool:
        """Whether the intervals are apart, and the medians differ by a tenth or more."""
        apart = self.now.high < self.before.low or self.before.high < self.now.low
        return apart and max(self.times_slower, 1 / self.times_slower) >= LEAST_CHANGE

    @property
    def too_noisy(self) -> bool:
        return max(ratio.high / ratio.low for ratio in (self.before, self.now)) > MOST_NOISE

    @property
    def times_slower(self) -> float:
        return self.before.median / self.now.median

    def __str__(self) -> str:
        was, now = self.before, self.now
        word, times = ("slower", self.times_slower) if self.times_slower >= 1 else ("faster", 1 / self.times_slower)
        return (
            f"{self.case}: {times:.2f} times {word}; {now.median:.3g} times as fast as {self.baseline} "
            f"({now.low:.3g} to {now.high:.3g}), was {was.median:.3g} ({was.low:.3g} to {was.high:.3g})"
        )


@dataclass(frozen=True)
class Comparison:
    """Two records compared.

    Attributes:
        slower, faster: the cases that changed beyond the noise, the largest change first.
        same: the number of those that did not.
        noisy: the cases that are too noisy to be compared.
        lost: the cases that were measured before and not now, with the reason.
        warnings: how the machines and versions differ.
    """

    slower: list[Change]
    faster: list[Change]
    same: int
    noisy: list[str]
    lost: list[str]
    warnings: list[str]


def check_common(old: Record, names: Sequence[str], path: Path) -> None:
    """Raises ValueError unless the old record has a case of this run."""
    if not {row.case for row in old.rows if row.faster} & set(names):
        quick = " of --quick" if old.quick else ""
        first = ", ".join(repr(row.case) for row in old.rows[:2]) or "none"
        raise ValueError(
            f"compare: expected a file with a case of this run, such as {names[0]!r}, got {path}, whose "
            f"{len(old.rows)} cases{quick} are others: {first}{', ...' if len(old.rows) > 2 else ''}"
        )


def compare(old: Record, new: Record, wanted: Sequence[str]) -> Comparison:
    """Compares the cases `wanted`, those that the new run was to measure."""
    before = {row.case: row for row in old.rows if row.baseline in row.faster}
    now = {row.case: row for row in new.rows}
    changes, lost = [], []
    for name in (name for name in wanted if name in before):
        was, row = before[name], now.get(name)
        if row is not None and was.baseline in row.faster:
            changes.append(Change(name, was.baseline, was.faster[was.baseline], row.faster[was.baseline]))
        else:
            failed = row.failed if row is not None else {}
            reason = failed.get(OURS) or failed.get(was.baseline) or "not measured"
            lost.append(f"{name}: {reason}")
    noisy = [each.case for each in changes if each.too_noisy]
    clear = [each for each in changes if not each.too_noisy]
    changed = sorted((each for each in clear if each.beyond_noise), key=lambda each: -each.times_slower)
    slower = [each for each in changed if each.times_slower > 1]
    faster = [each for each in reversed(changed) if each.times_slower < 1]
    same = len(clear) - len(changed)
    return Comparison(slower, faster, same, noisy, lost, _differences(old.machine, new.machine))


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What may change a ratio although the library did not."""
    of_old, of_new = ({**machine, **(machine.get("packages") or {})} for machine in (old, new))
    return [
        f"{name.replace('_', ' ')} was {of_old.get(name)} and is {of_new.get(name)}"
        for name in _SAME
        if of_old.get(name) != of_new.get(name)
    ]
