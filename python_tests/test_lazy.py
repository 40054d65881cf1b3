"""Lazy imports: the library without optional modules, the command line's help without torch."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import robustperf as rp
from robustperf.data.load import NAMES, InMemory

PACKAGES = [rp, rp.nets, rp.nuisance, rp.transfer]
HEAVY = {
    "torch._dynamo",
    "sympy",
    "scipy",
    "sklearn",
    "matplotlib",
    "accelerate",
    "pandas",
    "rich",
    "typer",
    "PIL",
    "jinja2",
}


def imported(code):
    """The modules that a new process has after running `code`."""
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_library_does_not_import_optional_modules():
    assert not {"torch", "numpy", *HEAVY} & imported("import robustperf")
    everything = imported("import robustperf as rp\nfor name in dir(rp): getattr(rp, name)")
    assert {"torch", "robustperf.ops.best_of_k", "robustperf.training.fit"} <= everything and not HEAVY & everything


COMMANDS = """
import sys
from robustperf.cli import app
for arguments, code in {commands}:
    try:
        app(arguments)
    except SystemExit as end:
        assert end.code == code, (arguments, end.code)
    assert not {heavy} & set(sys.modules), (arguments, {heavy} & set(sys.modules))
"""


def test_help_and_misspelt_options_need_no_torch():
    commands = [
        (["--help"], 0), (["--version"], 0), (["margins", "--atacks", "fgsm"], 2), (["train", "--help"], 0),
        (["nuisance", "show", "--help"], 0), (["data", "--help"], 0), (["transfer", "--help"], 0),
        (["sweep", "--help"], 0), (["evaluate", "--help"], 0), (["demo", "--help"], 0), (["report", "--help"], 0),
        (["compare", "--help"], 0), (["marigns"], 2),
    ]  # fmt: skip
    heavy = (HEAVY | {"torch", "numpy"}) - {"rich", "typer"}
    assert "typer" in imported(COMMANDS.format(commands=commands, heavy=heavy))


def test_the_operations_are_registered_with_their_fakes():
    code = """
import torch, robustperf.ops
from torch._subclasses import FakeTensorMode
with FakeTensorMode():
    gap = torch.ops.robustperf.logit_gap(torch.empty(3, 5), torch.empty(3, dtype=torch.int64), 0.0, "reference")
assert gap.shape == (3,) and gap.dtype == torch.float64
"""
    assert "robustperf.ops.registry" in imported(code)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_public_names_and_no_others(package):
    assert dir(package) == sorted(package.__all__) and not any(name.startswith("_") for name in dir(package))
    for name in package.__all__:
        assert getattr(package, name) is getattr(package, name)
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_type_checkers_see_the_same_names(package):
    """A static reader knows the names of a lazy package from its imports under TYPE_CHECKING."""
    known = set()
    for node in ast.parse(Path(package.__file__).read_text()).body:
        if isinstance(node, ast.If):
            assert node.test.id == "TYPE_CHECKING"
            known |= {
                alias.asname or alias.name
                for each in node.body
                if isinstance(each, ast.ImportFrom)
                for alias in each.names
            }
            known |= {each.target.id for each in node.body if isinstance(each, ast.AnnAssign)}
        known |= {node.name} if isinstance(node, ast.FunctionDef) else set()
        known |= (
            {target.id for target in node.targets if isinstance(target, ast.Name)}
            if isinstance(node, ast.Assign)
            else set()
        )
    assert set(package.__all__) <= known


def test_type_checkers_know_which_data_sets_are_in_memory():
    assert set(get_args(InMemory)) == {name for name in NAMES if not name.startswith("mnist-c/")}
