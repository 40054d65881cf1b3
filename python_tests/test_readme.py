"""The Python examples of README run as they stand there, each on its own."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_readme_has_an_example_of_margins_and_of_each_job():
    assert len(EXAMPLES) == 4


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_runs(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(compile(EXAMPLES[number], f"README.md, example {number + 1}", "exec"), {})
    if number == 0:
        assert (tmp_path / "margins.png").read_bytes().startswith(b"\x89PNG")
    if "svm.adapt(" in EXAMPLES[number]:
        before, after = map(float, capsys.readouterr().out.split())
        assert after > before


def test_readme_is_short():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!https:)([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_contributing_names_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:csrc|robustperf|python_tests|benchmarks)/[\w/.]+)`", text):
        assert (ROOT / name).exists(), name
