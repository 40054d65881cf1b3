"""The figures that `benchmarks/README.md` quotes: how they are read, and that stored results agree with them."""

import json
import re

import pytest

from benchmarks.common.options import RESULTS, ROOT
from benchmarks.common.quoted import README, agrees, quoted_figures

NOT_MEASURED = re.compile("in the paper")  # columns that only the README has


def test_tables_of_reports_are_read_and_others_are_not(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(
        "# Title\n\n| option | meaning |\n| --- | --- |\n| a | b |\n\n"
        "| `trial_avx2` | x faster | ms |\n| --- | --- | --- |\n| [1, 2] a | 3 |  |\n| p=2 | 1.7 to 2.4 | 5e-8 |\n"
    )
    assert quoted_figures(path) == {
        "trial_avx2": {"[1, 2] a": {"x faster": "3"}, "p=2": {"x faster": "1.7 to 2.4", "ms": "5e-8"}}
    }
    path = tmp_path / "short.md"
    path.write_text("| `trial` | x faster |\n| --- | --- |\n| a | 1 | 2 |\n")
    with pytest.raises(ValueError, match="short.md: expected 1 cells after a, got 2"):
        quoted_figures(path)


@pytest.mark.parametrize(
    "value, cell, expected",
    [
        (44.89, "45", True), (45.6, "45", False), (1.66, "1.7 to 2.4", True), (2.44, "1.7 to 2.4", True),
        (2.46, "1.7 to 2.4", False), (5.2e-8, "5e-8", True), (5.6e-8, "5e-8", False), (0, "0", True),
        (-9.9, "-9.9", True),
    ],
)  # fmt: skip
def test_a_value_agrees_with_what_it_rounds_to(value, cell, expected):
    assert agrees(value, cell) is expected


@pytest.mark.skipif(not RESULTS.is_dir(), reason="a source distribution has no stored results")
def test_stored_results_agree_with_the_quoted_figures():
    quoted, seen = quoted_figures(), set()
    assert len(quoted) > 20
    for path in sorted(RESULTS.rglob("*.json")):
        rows = json.loads(path.read_text()).get("rows", [])
        stored = {str(next(iter(row.values()))): row for row in rows}
        for label, cells in quoted.get(path.stem, {}).items():
            for column, cell in cells.items():
                if not NOT_MEASURED.search(column):
                    assert agrees(stored[label][column], cell), (path.name, label, column, stored[label][column], cell)
        seen.add(path.stem)
    assert seen >= quoted.keys()


def test_every_benchmark_stands_in_the_readme_and_every_command_exists():
    modules = {
        f"{folder}.{path.stem}"
        for folder in ("speed", "paper")
        for path in (ROOT / "benchmarks" / folder).glob("*.py")
        if '__name__ == "__main__"' in path.read_text()
    }
    text = README.read_text()
    named = set(re.findall(r"benchmarks\.((?:speed|paper)\.\w+)", text))
    assert named <= modules
    assert {module for module in modules if module.partition(".")[2] not in text} == set()
