"""What a release needs: one version everywhere, a dated entry of the changelog, valid metadata for citations."""

import datetime
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


VERSION = re.search(r'^version = "(.*)"$', text("pyproject.toml"), re.MULTILINE)[1]


def test_the_version_is_semantic_and_the_same_everywhere():
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["version"] == VERSION
    heading = re.search(r"^## (\S+) \((.*)\)$", text("CHANGELOG.md"), re.MULTILINE)
    assert heading[1] == VERSION
    assert datetime.datetime.strptime(heading[2], "%d %B %Y").date() == citation["date-released"]


def test_the_changelog_is_grouped():
    newest = re.split(r"^## ", text("CHANGELOG.md"), flags=re.MULTILINE)[1]
    assert re.findall(r"^### (.*)$", newest, re.MULTILINE) == ["Added", "Changed", "Deprecated", "Fixed"]


def test_the_citation_has_what_the_format_requires():
    """The required keys of schema 1.2.0; `cffconvert --validate` checks all of it."""
    citation = yaml.safe_load(text("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys() and citation["cff-version"] == "1.2.0"
    assert citation["license"] == re.search(r'^license = "(.*)"$', text("pyproject.toml"), re.MULTILINE)[1]
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= reference.keys()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib needs Python 3.11")
def test_wheels_are_built_for_each_python_that_ci_tests():
    import tomllib

    project = tomllib.loads(text("pyproject.toml"))
    built = re.findall(r"cp3(\d+)-", project["tool"]["cibuildwheel"]["build"])
    workflow = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]
    tested = [*workflow["run"]["strategy"]["matrix"]["python"], *re.findall(r'python-version: "(.*)"', text(
        ".github/workflows/ci.yml"))]  # fmt: skip
    assert sorted(int(version.partition(".")[2]) for version in tested) == sorted(map(int, built))
    assert project["project"]["requires-python"] == f">=3.{min(map(int, built))}"
    assert "robustperf demo" in project["tool"]["cibuildwheel"]["test-command"]
