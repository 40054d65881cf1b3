"""`learn` on two processes computes what one computes, and one of them writes."""

import csv
import os

import pytest
import torch

from python_tests.nuisance.test_learn import quick
from python_tests.support import processes
from robustperf.nuisance import LearnedKernel
from robustperf.training.munit import FIGURES


def run(out):
    kernel = quick(out=out, cpu=True, iterations=3)
    torch.save(kernel, f"{out}-{os.environ['RANK']}.pt")


def losses(folder):
    with open(folder / "steps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [[float(row[name]) for name in ("loss", *FIGURES, "discriminator_loss")] for row in rows]


def test_two_processes_compute_what_one_does(tmp_path):
    quick(out=tmp_path / "one", cpu=True, iterations=3)
    processes.on_two_processes(run, tmp_path / "two", log=tmp_path / "log")
    # rounding grows from step to step, as Adam divides by the size of the gradient
    for found, expected in zip(losses(tmp_path / "two"), losses(tmp_path / "one"), strict=True):
        assert found == pytest.approx(expected, rel=1e-3)
    kernels = [torch.load(f"{tmp_path / 'two'}-{rank}.pt", weights_only=False) for rank in (0, 1)]
    assert kernels[0] == kernels[1] == LearnedKernel.load(tmp_path / "two")
    assert (tmp_path / "two" / "quality.csv").exists()
