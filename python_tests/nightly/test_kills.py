"""Processes that are killed at random times and resumed: the results are those of a run that nobody killed.

After each kill every file is whole, and what was finished before is still there.
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

KILLS = int(os.environ.get("ROBUSTPERF_KILLS", 12))
"""Of each job."""
ROOT = Path(__file__).parents[2]

FIT = """
from python_tests.support.training import net, train
import robustperf as rp

def work(out):
    data = rp.data.load("digits", "train").limit(120)
    train(net(), data, out=out, resume=True, checkpoint_steps=2, optimizer="adam", epochs=8)
"""

MARGINS = """
import torch
import robustperf as rp
from pathlib import Path
from python_tests.support.training import net
from robustperf.attacks.named import attacks_of
from robustperf.cli.margins import report

def work(out):
    data = rp.data.load("digits", "test").limit(150)
    report(net(), data, attacks_of("fgsm,pgd(steps=20)", 2), 2.0, Path(out), batch_size=10, resume=True)
"""

LEARN = """
from robustperf.nuisance.learned.run import LearningRun
from python_tests.nuisance.test_learn import quick

def work(out):
    LearningRun._draw = lambda *arguments: None  # the picture takes most of the time
    quick(out=out, resume=True, iterations=40, snapshots=[15])
"""

RUN = """
import sys
import torch
torch.set_num_threads(1)
{job}
print("ready", flush=True)
work(sys.argv[1])
print("done", flush=True)
"""


def start(job, folder):
    """The job in a process of its own that has imported everything and begins its work."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format(job=job), str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


def check_files(folder):
    """Every file of the folder is whole. Hidden files are of a process that was killed while it wrote."""
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                assert all(file.get_tensor(name) is not None for name in file.keys())
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                assert all(file[name] is not None for name in file.files)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".csv":
            assert path.read_text().endswith("\n")
            with open(path, newline="") as file:
                assert len({len(row) for row in csv.reader(file)}) == 1
        else:
            assert path.suffix == ".png", path


def steps_of(folder):
    """The number of steps in the checkpoint."""
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        return len(file.get_slice("further.steps")[:])


def batches_of(folder):
    """The number of batches that are saved, or all of them."""
    return 15 if (folder / "margins.npz").exists() else len(list((folder / "parts").glob("[!.]*.npz")))


def arrays(path):
    with np.load(path) as file:
        return {name: file[name].tobytes() for name in file.files}


JOBS = {
    "fit": (FIT, steps_of, ["model.safetensors", "steps.csv"]),
    "margins": (MARGINS, batches_of, ["margins.npz"]),
    "learn": (LEARN, steps_of, ["kernel.safetensors", "snapshots/15/kernel.safetensors", "quality.csv", "steps.csv"]),
}


@pytest.mark.parametrize("name", JOBS)
def test_killed_and_resumed(name, tmp_path):
    job, done, files = JOBS[name]
    straight, killed, choose = tmp_path / "straight", tmp_path / "killed", random.Random(2026)
    process, began = start(job, straight), time.monotonic()
    out, err = process.communicate()
    seconds = time.monotonic() - began
    assert process.returncode == 0 and out.endswith("done\n"), err
    kept = ended = 0
    for _ in range(KILLS):
        process = start(job, killed)
        try:
            process.communicate(timeout=choose.uniform(0, 0.4) * seconds)  # so that many kills fall into one run
            ended += 1
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        if killed.exists():
            check_files(killed)
            assert done(killed) >= kept
            kept = done(killed)
    process = start(job, killed)
    _, err = process.communicate()
    assert process.returncode == 0 and ended < KILLS, err
    check_files(killed)
    assert not [path for path in killed.rglob("*") if path.name.endswith(".part")]
    for file in files:
        read = arrays if file.endswith(".npz") else Path.read_bytes
        assert read(straight / file) == read(killed / file), file
