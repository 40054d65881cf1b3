"""train, evaluate and margins under `torchrun` with two processes, beside one process."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from robustperf import cli, nets
from robustperf.nets import weights_file
from robustperf.robustness.margins import MarginSearch

# several commands in one launch: importing torch takes longer than any of them
SCRIPT = """
import gc, json, os, sys, torch
from robustperf.cli import app
for arguments in json.loads(sys.argv[1]):
    try:
        app(arguments, standalone_mode=False)
    except ValueError as error:
        print(error, flush=True)
torch.distributed.destroy_process_group()
gc.collect()
threads = [open(f"/proc/self/task/{thread}/comm").read().strip() for thread in os.listdir("/proc/self/task")]
assert not [name for name in threads if "gloo" in name], threads  # they might abort the exit
"""
TRAIN = [
    "train",
    "--data",
    "digits",
    "--network",
    "small-cnn",
    "--limit",
    "200",
    "--batch-size",
    "20",
    "--epochs",
    "2",
    "--optimizer",
    "adam",
    "--objective",
    "gaussian",
    "--cpu",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(output of two processes, output of one, their folder): for each command NAME there are NAME2 and NAME1."""
    folder = tmp_path_factory.mktemp("torchrun")
    torch.manual_seed(0)
    model = nets.build("small-cnn", size=8)
    with torch.no_grad():
        model.head[-1].weight *= 30  # margins that FGSM finds
    weights = folder / "model.safetensors"
    weights_file.save(weights, model)
    evaluate = ["evaluate", "--checkpoint", str(weights), "--data", "digits", "--batch-size", "64", "--cpu"]
    margins = [
        "margins",
        "--checkpoint",
        str(weights),
        "--data",
        "digits",
        "--limit",
        "110",
        "--batch-size",
        "20",
        "--attacks",
        "fgsm,pgd(eps=2,steps=3)",
    ]

    def commands(processes):
        return [
            [*TRAIN, "--out", str(folder / f"train{processes}")],
            [
                *evaluate,
                "--domain",
                "brightness:-75",
                "--domain",
                "brightness:75-",
                "--out",
                str(folder / f"evaluate{processes}"),
            ],
            [*margins, "--out", str(folder / f"margins{processes}")],
            [*margins, "--out", str(folder / f"resumed{processes}"), "--resume"],
        ]

    def interrupt(*arguments, _found=MarginSearch.stream, **named):
        if int(named["index"][0]) == 40:
            raise KeyboardInterrupt
        return _found(*arguments, **named)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each process under torchrun: threads decide how sums are rounded
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MarginSearch, "stream", interrupt)
        for processes in (1, 2):
            result = CliRunner().invoke(cli.app, commands(processes)[3])
            assert result.exit_code == 130 and "2 of 6 batches are saved" in result.output
    alone = ""
    for command in commands(1):
        result = CliRunner().invoke(cli.app, command)
        assert result.exit_code == 0, result.output
        alone += result.output
    torch.set_num_threads(threads)
    script = folder / "commands.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    again = [*margins, "--out", str(folder / "margins2")]
    process = subprocess.run(
        [*launch, json.dumps([*commands(2), again])],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout, alone, folder


def test_evaluate_equals_one_process(runs):
    _, _, folder = runs
    assert (folder / "evaluate2").read_bytes() == (folder / "evaluate1").read_bytes()


@pytest.mark.parametrize("run", ["margins", "resumed"])
def test_margins_equal_those_of_one_process(runs, run):
    _, _, folder = runs
    ours, theirs = (np.load(folder / f"{run}{processes}" / "margins.npz") for processes in (2, 1))
    assert ours.files == theirs.files and theirs["distance"].shape == (110,)
    assert np.isfinite(theirs["distance"]).mean() > 0.5
    for name in theirs.files:
        np.testing.assert_array_equal(ours[name], theirs[name])
    ours, theirs = (json.loads((folder / f"{run}{processes}" / "summary.json").read_text()) for processes in (2, 1))
    assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
    assert ours["batches_kept_from_before"] == (2 if run == "resumed" else 0)
    for processes in (1, 2):
        files = {path.name for path in (folder / f"{run}{processes}").iterdir()}
        assert files - {".lock"} == {"margins.npz", "margins.png", "settings.json", "summary.json"}


def test_train_writes_one_set_of_files(runs):
    _, _, folder = runs
    names = [{path.name for path in (folder / f"train{processes}").iterdir()} for processes in (1, 2)]
    assert names[0] == names[1] and "curves.png" in names[0]
    rows = [list(csv.DictReader(open(folder / f"train{processes}" / "steps.csv"))) for processes in (1, 2)]
    assert len(rows[0]) == len(rows[1]) == 18
    for one, two in zip(*rows, strict=True):
        assert float(two["loss"]) == pytest.approx(float(one["loss"]), rel=1e-4)


def test_all_processes_refuse_an_earlier_run(runs):
    together, _, folder = runs
    assert together.count(f"out: {folder / 'margins2'} holds an earlier run") == 2


def test_one_process_prints(runs):
    together, alone, _ = runs
    for text in ("Training on", "mean loss", "results:", "Margins on", "summary:", "Next:", "batches were done"):
        assert together.count(text) == alone.count(text) > 0, together
