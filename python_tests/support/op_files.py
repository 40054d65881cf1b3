"""Which test files are an operation's: test_<op>.py and test_<op>_<subject>.py."""

from pathlib import Path

from robustperf.ops import registry

TESTS = Path(__file__).parents[1] / "ops"


def op_of(stem: str) -> str:
    """The operation that a test file is about, the longest name that fits: test_nuisance_draw is nuisance_draw's."""
    return max((op for op in registry.ops() if f"{stem}_".startswith(f"test_{op}_")), key=len, default="")


def files_of(op: str) -> list[str]:
    """The names of the operation's test files, without .py."""
    return sorted(path.stem for path in TESTS.glob("test_*.py") if op_of(path.stem) == op)
