"""The public docstrings: each has an example that runs and prints what it shows, and describes its arguments itself."""

import doctest
import importlib
import inspect
import re

import numpy as np
import pytest
import torch
from torch import nn

import robustperf as rp

PACKAGES = [rp, *(getattr(rp, name) for name in rp.__all__ if inspect.ismodule(getattr(rp, name)))]
RANDOM = ("fold_in", "key", "normal", "uniform")
# a name that two packages have is there once
PUBLIC = {
    id(value): (f"{package.__name__}.{name}", value)
    for package in PACKAGES
    for name in getattr(package, "__all__", RANDOM)
    if callable(value := getattr(package, name))
}
SKIPPED = {
    "load_model": "downloads the weights of timm",
    "fetch": "downloads a data set",
    "read_idx": "needs MNIST's files",
    "ImageFolder": "needs ImageNet",
    "OnnxModel": "needs an ONNX file",
}
CHAIN = re.compile(r"(: |[Rr]aises |[Ee]rrors |[Aa]rguments.* |[Rr]esult.* )(as (in|of|for)|are those of|see) `")


def examples_of(value):
    """The examples of a name and of its methods, with the names of its module and four more."""
    own = vars(importlib.import_module(inspect.unwrap(value).__module__))
    names = {**own, "rp": rp, "torch": torch, "np": np, "nn": nn}
    return [test for test in doctest.DocTestFinder().find(value, value.__name__, globs=names) if test.examples]


@pytest.mark.parametrize(("name", "value"), PUBLIC.values(), ids=[name for name, _ in PUBLIC.values()])
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
def test_docstring(name, value, tmp_path, monkeypatch):
    for line in inspect.getdoc(value).splitlines():
        assert not CHAIN.search(line), f"{name}: {line.strip()}"
    tests = examples_of(value)
    assert any(test.name == value.__name__ for test in tests), f"{name}: no example in its docstring"
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    output = []
    for test in tests:
        skipped = any(example.options.get(doctest.SKIP) for example in test.examples)
        assert not skipped or value.__name__ in SKIPPED, f"{test.name}: skipped without a reason"
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        runner.run(test, out=output.append)
    assert not output, "".join(output)
