"""`learn` on two processes computes what one computes, and one of them writes."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from python_tests.nuisance.test_learn import quick
from robustperf.nuisance import LearnedKernel
from robustperf.training.munit import FIGURES

SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import torch
from python_tests.nuisance.test_learn import quick
torch.set_num_threads(1)
kernel = quick(out={out!r}, cpu=True, iterations=3)
torch.save(kernel, {out!r} + f"-{{torch.distributed.get_rank()}}.pt")
"""


def losses(folder):
    with open(folder / "steps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [[float(row[name]) for name in ("loss", *FIGURES, "discriminator_loss")] for row in rows]


def test_two_processes_compute_what_one_does(tmp_path):
    quick(out=tmp_path / "one", cpu=True, iterations=3)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(Path(__file__).parents[2]), out=str(tmp_path / "two")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # rounding grows from step to step, as Adam divides by the size of the gradient
    for found, expected in zip(losses(tmp_path / "two"), losses(tmp_path / "one"), strict=True):
        assert found == pytest.approx(expected, rel=1e-3)
    kernels = [torch.load(f"{tmp_path / 'two'}-{rank}.pt", weights_only=False) for rank in (0, 1)]
    assert kernels[0] == kernels[1] == LearnedKernel.load(tmp_path / "two")
    assert (tmp_path / "two" / "quality.csv").exists()
