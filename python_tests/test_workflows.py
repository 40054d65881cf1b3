"""The files that other services read are well-formed, and name files and tools that exist."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_has_jobs_with_steps(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["name"] and workflow[True]  # YAML 1.1 reads the key `on` as true
    for job in workflow["jobs"].values():
        assert job["runs-on"] and job["timeout-minutes"] > 0
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@v[\d.]+", step["uses"]) for step in job["steps"] if "uses" in step)


def test_ci_runs_the_script():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert ".ci/run" in [step.get("run") for step in jobs["run"]["steps"]]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_nightly_runs_every_part_of_the_script():
    script = (ROOT / ".ci" / "nightly").read_text(encoding="utf-8")
    parts = set(re.search(r'parts=" \$\{\*:-(.*)\} "', script)[1].split())
    assert parts == set(re.findall(r'\$parts == \*" (\w+) "\*', script))
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8"))["jobs"]
    commands = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert {part for command in commands for part in command.partition(".ci/nightly ")[2].split()} == parts
    for name in ("nightly", "wheel"):
        assert (ROOT / ".ci" / name).stat().st_mode & 0o111


def test_hooks_are_local_and_run_the_tools_of_ci():
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    hooks = [hook for repo in repos for hook in repo["hooks"]]
    assert {repo["repo"] for repo in repos} == {"local"}
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for hook in hooks:
        assert hook["language"] == "system"
        assert hook["entry"].split()[0] in script


def test_tools_are_pinned():
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]}
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    tools = re.findall(r'"([\w-]+)"', re.search(r"^dev = \[(.*)\]$", text, re.MULTILINE)[1])
    assert tools and set(tools) <= pinned
