"""Which test files are an operation's: test_<op>.py and test_<op>_<subject>.py."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from robustperf.ops import registry

TESTS = Path(__file__).parents[1] / "ops"


def op_of(stem: str) -> str:
    """The operation that a test file is about, the longest name that fits: test_nuisance_draw is nuisance_draw's."""
    return max((op for op in registry.ops() if f"{stem}_".startswith(f"test_{op}_")), key=len, default="")


def files_of(op: str) -> list[str]:
    """The names of the operation's test files, without .py."""
    return sorted(path.stem for path in TESTS.glob("test_*.py") if op_of(path.stem) == op)


def select(config: pytest.Config, items: list[pytest.Item], backend: str, wanted: Mapping[str, Sequence[str]]) -> None:
    """Deselects all but the tests of `backend` that `wanted` has a pattern for; all stay of a file without patterns.

    Args:
        wanted: patterns of the tests' names, by test file (its stem) or by operation.

    Raises pytest.UsageError for a pattern that matches no test: a renamed test would silently not run.
    """
    chosen, unused = [], {}
    for item in items:
        stem = item.path.stem
        key = stem if stem in wanted else op_of(stem)
        patterns = wanted.get(key, [""])
        unused.setdefault(key, set(patterns))
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        runs = parameters["backend"] == backend if "backend" in parameters else stem in wanted
        if runs and (found := [pattern for pattern in patterns if re.search(pattern, item.name)]):
            unused[key] -= set(found)
            chosen.append(item)
    if faults := [f"{key}: {pattern}" for key, patterns in unused.items() for pattern in sorted(patterns)]:
        raise pytest.UsageError(f"patterns that match no test of {backend}: {', '.join(faults)}")
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
