"""The command line: its output, its files and its errors."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import robustperf as rp
from python_tests.support import processes
from robustperf import cli, nets
from robustperf.attacks import BG, FGSM
from robustperf.nets import weights_file

COMMAND = [sys.executable, "-c", "from robustperf.cli import main; main()"]
ARGUMENTS = ["margins", "--data", "digits", "--attacks", "fgsm,bg", "--limit", "60", "--batch-size", "20"]


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    weights_file.save(path, nets.build("small-cnn", size=8))
    return path


def run(*arguments, code=0):
    """Output and errors of `robustperf ARGUMENTS`, called as the console script calls it."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if isinstance(result.exception, Exception) and code == 1:  # main() makes a line of it, see test_errors_are_one_line
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


def test_info_names_every_backend_and_operation():
    output = run("info")
    for word in ("torch", "instruction set", *rp.ops.registry.BACKENDS, *rp.ops.registry.ops()):
        assert word in output


def test_demo(tmp_path, monkeypatch):
    out = tmp_path / "demo"
    output = run("demo", "--out", out)
    for word in (
        "accuracy",
        "area under the margin curve",
        "95% confidence band",
        "median margin",
        "ShrinkingBall",
        "evaluations",
        "seconds",
        "no adversarial example found",
    ):
        assert word in output
    summary = json.loads((out / "summary.json").read_text())
    assert summary["points"] == 599 and summary["accuracy"] > 0.9 and summary["evaluations"] <= 9
    assert (out / "margins.png").read_bytes().startswith(b"\x89PNG")
    margins = np.load(out / "margins.npz")
    assert margins["distance"].shape == (599,)
    assert summary["area"] == pytest.approx(np.minimum(margins["distance"], 8).mean(), rel=1e-12)
    assert summary["area_low"] <= summary["area"] <= summary["area_high"]
    model = weights_file.load(out / "model.safetensors")
    test = rp.data.load("digits")
    assert (model.eval()(test.x).argmax(1) == test.y).double().mean().item() == pytest.approx(summary["accuracy"])

    load = rp.data.load
    monkeypatch.setattr("robustperf.data.load", lambda *which: load(*which).limit(100))
    run("demo", "--out", out)  # a second time, in the same folder
    assert json.loads((out / "summary.json").read_text())["points"] == 100


def test_margins_equal_those_of_python(tmp_path, weights):
    out = tmp_path / "out"
    run(*ARGUMENTS, "--checkpoint", weights, "--out", out, "--keep-points")
    x = rp.data.load("digits").x[:60]
    ours = rp.margins(weights_file.load(weights), x, attacks=[FGSM(), BG()], batch_size=20, keep_points=True)
    kept = np.load(out / "margins.npz")
    for name in ("distance", "attack", "evaluations", "found", "point", "attack_evaluations"):
        np.testing.assert_array_equal(kept[name], getattr(ours, name).numpy())
    assert not (out / "parts").exists()


def test_true_labels_and_norms(tmp_path, weights):
    out = tmp_path / "out"
    run(*ARGUMENTS, "--checkpoint", weights, "--out", out, "--labels", "true", "--norm", "inf")
    summary = json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)  # strict JSON
    distance = np.load(out / "margins.npz")["distance"]
    assert summary["norm"] == "inf" and summary["upper"] == 1.0
    assert (distance == 0).mean() == pytest.approx(1 - summary["accuracy"])


@pytest.mark.parametrize("change, message", [
    (["--data", "mnist5"], "mnist5"),
    (["--norm", "3"], "--norm: expected 0, 1, 2 or inf, got '3'"),
    (["--attacks", "fgsm,deepfool"], "expected one of fgsm, pgd, bg"),
    (["--checkpoint", "nowhere.safetensors"], "no file nowhere.safetensors"),
    (["--model", "math:sqrt2"], "--model: expected MODULE:FUNCTION"),
    (["--model", "math"], "--model: expected MODULE:FUNCTION"),
    (["--device", "abacus"], "--device: expected one that torch can use here, got 'abacus'"),
    (["--device", "cuda:99"], "--device: expected one that torch can use here, got 'cuda:99'"),
])  # fmt: skip
def test_wrong_arguments(tmp_path, weights, change, message):
    assert message in run(*ARGUMENTS, "--checkpoint", weights, "--out", tmp_path / "out", *change, code=1)


def test_no_points(tmp_path, weights):
    np.savez(tmp_path / "none.npz", images=np.zeros((0, 8, 8), np.uint8), labels=np.zeros(0, np.int64))
    message = run(*ARGUMENTS, "--data", tmp_path / "none.npz", "--checkpoint", weights, "--out", tmp_path / "o", code=1)
    assert "none" in message


def test_a_checkpoint_that_is_not_safetensors(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(1)}, path)
    message = run(*ARGUMENTS, "--checkpoint", path, "--out", tmp_path / "out", code=1)
    assert message.startswith("--checkpoint: expected a safetensors file")


def test_errors_are_one_line(tmp_path):
    process = subprocess.run(
        [*COMMAND, *ARGUMENTS, "--checkpoint", "nowhere", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr == "robustperf: --checkpoint: no file nowhere\n"


SLOW = """
import time, torch
from robustperf import nets
class Slow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nets.build("small-cnn", size=8)
    def forward(self, x):
        time.sleep(0.02)
        return self.inner(x)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_an_interrupted_run_is_resumed(tmp_path, monkeypatch, how):
    (tmp_path / "slow_network.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    import slow_network

    torch.manual_seed(0)
    slow, weights = slow_network.Slow(), tmp_path / "slow.safetensors"
    slow.architecture = ("none of ours", {})
    weights_file.save(weights, slow)
    arguments = [*ARGUMENTS, "--model", "slow_network:Slow", "--checkpoint", str(weights)]
    out = tmp_path / "out"
    log = tmp_path / "log"
    process = processes.start(processes.execute, COMMAND[-1], *arguments, "--out", str(out), log=log)
    while not (out / "parts" / "000000000.npz").exists():
        assert process.is_alive(), log.read_text()
        time.sleep(0.01)
    os.kill(process.pid, how)
    process.join()
    output = log.read_text()
    if how == signal.SIGINT:
        assert process.exitcode == 130
        assert "of 3 batches are saved in" in output and "--resume" in output
    first = (out / "parts" / "000000000.npz").read_bytes()
    assert "holds an earlier run" in run(*arguments, "--out", out, code=1)
    assert "--batch-size was 20 and is 30" in run(*arguments, "--batch-size", 30, "--out", out, "--resume", code=1)
    assert (out / "parts" / "000000000.npz").read_bytes() == first

    assert "batches were done before" in run(*arguments, "--out", out, "--resume")
    run(*arguments, "--out", tmp_path / "whole")
    resumed, whole = np.load(out / "margins.npz"), np.load(tmp_path / "whole" / "margins.npz")
    assert resumed.files == whole.files
    for name in whole.files:
        np.testing.assert_array_equal(resumed[name], whole[name])
    assert "3 of 3 batches were done before" in run(*arguments, "--out", out, "--resume")  # a finished one, again


def test_points_without_an_adversarial_example_are_reported(tmp_path, weights):
    model, out = weights_file.load(weights), tmp_path / "out"
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    weights_file.save(weights, model)
    output = run(*ARGUMENTS[:3], "--attacks", "fgsm", "--limit", 20, "--checkpoint", weights, "--out", out)
    assert "20 of 20" in output and "largest distance" in output
    summary = json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["not_found"] == 20 and summary["median_margin"] == "inf"
    assert summary["area"] == pytest.approx(math.sqrt(64))
