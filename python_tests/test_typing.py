"""A type checker accepts what README shows; skips where pyright is not installed."""

import json
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


def test_the_examples(tmp_path):
    pyright = shutil.which("pyright")
    if pyright is None:
        pytest.skip("pyright is not installed")
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(examples) > 5
    for number, example in enumerate([*examples, FURTHER]):
        (tmp_path / f"example{number}.py").write_text(GIVEN + example)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}))
    done = subprocess.run(
        [pyright, "--pythonpath", sys.executable, "--outputjson", "-p", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = [each for each in json.loads(done.stdout)["generalDiagnostics"] if each["severity"] == "error"]
    assert not found, found
