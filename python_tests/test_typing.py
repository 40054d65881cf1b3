"""A type checker accepts the examples and knows the type of every public symbol; skips where pyright is missing."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# what the examples take from the user's program
GIVEN = """
import numpy as np
import torch
import robustperf as rp
from robustperf.attacks import BG, FGSM, PGD
from robustperf.nuisance import Brightness, Compose, Contrast, Rotation
from typing import Any
import sklearn.svm
SVC: Any = sklearn.svm.SVC  # its parameters have the types of their defaults to a checker
model, svc = torch.nn.Linear(2, 2), sklearn.svm.SVC()
x, y, index = torch.rand(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), torch.arange(2)
x_adv, candidates, w, c, step = x, x[None], x, x, 0
X = X_shifted = X_new = np.zeros((3, 4))
train = rp.data.load("digits")
other = rp.MarginCurve.from_margins(torch.rand(3), 1.0)
kernel, key = Rotation(30) + Brightness(0.4), rp.random.key(0)
def labeller(x: torch.Tensor) -> torch.Tensor: return y
"""
FURTHER = """
margins = rp.margins(model, x, attacks="fgsm,pgd(eps=2),bg", norm=2, progress=True)
number: float = margins.median + len(margins) + margins.summary()["area"]
margins.save("margins.npz")
same: bool = rp.Margins.load("margins.npz") == margins
images: torch.Tensor = rp.data.load("digits").x
image, label = rp.data.load("digits")[0]
logits: torch.Tensor = rp.transfer.module_from_sklearn(svc)(x)
version: str = rp.__version__
rp.nets.weights_file.save("model.safetensors", rp.nets.build("lenet"))
drawn: torch.Tensor = (rp.nuisance.KERNELS["fog"]() + rp.nuisance.mnist_c("fog")).draw(x, key=key, index=index)
"""


# scikit-learn has no types: a subclass of its classes has a base class that is unknown to the checker.
UNTYPED_BASES = {"ModuleClassifier", "TransferClassifier"}
# What implements the operations, behind the public functions.
BACKENDS = tuple(f"robustperf.ops.{backend}." for backend in ("reference", "native", "cuda", "triton"))


def pyright(*arguments):
    """pyright's report, as JSON gives it."""
    command = shutil.which("pyright")
    if command is None:
        pytest.skip("pyright is not installed")
    done = subprocess.run(
        [command, "--pythonpath", sys.executable, "--outputjson", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return json.loads(done.stdout)


def test_examples(tmp_path):
    pages = {"README.md": "", **{f"docs/{path.name}": GIVEN for path in sorted((ROOT / "docs").glob("*.md"))}}
    number = 0
    for page, given in pages.items():
        for example in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL):
            number += 1
            (tmp_path / f"example{number}.py").write_text(given + example)
    assert number > 10
    (tmp_path / "further.py").write_text(GIVEN + FURTHER)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}))
    found = [each for each in pyright("-p", str(tmp_path))["generalDiagnostics"] if each["severity"] == "error"]
    assert not found, found


def test_every_public_symbol_has_a_known_type():
    found = []
    symbols = pyright("--verifytypes", "robustperf", "--ignoreexternal")["typeCompleteness"]["symbols"]
    for symbol in symbols:
        name = symbol["name"].rpartition(".")[2]
        if name in UNTYPED_BASES or name in ("__getattr__", "__dir__") or symbol["name"].startswith(BACKENDS):
            continue
        if symbol["isExported"] and not symbol["isTypeKnown"]:
            found.append((symbol["name"], [each["message"] for each in symbol["diagnostics"]]))
    assert len(symbols) > 1000
    assert found == []
