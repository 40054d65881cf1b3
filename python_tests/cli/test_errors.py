"""Errors on the command line: options instead of arguments, suggestions for misspelt names, early failures."""

import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.main import get_command
from typer.testing import CliRunner

import robustperf as rp
from python_tests.support import processes
from robustperf import cli, nets
from robustperf.cli.errors import in_options
from robustperf.names import did_you_mean
from robustperf.nets import weights_file
from robustperf.training import MRT

SCRIPT = os.path.join(os.path.dirname(sys.executable), "robustperf")


def run(*arguments, code=1):
    """The error of `robustperf ARGUMENTS`, or what it prints."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, (result.output, result.exception)
    return str(result.exception) if code == 1 else result.output


@pytest.mark.parametrize("command, message, expected", [
    ("margins", "norm: expected 1, got 3", "--norm: expected 1, got 3"),
    ("margins", "attacks: eps: expected 1, got pgd(norm=2)\n  pgd(norm=2, resume=True)\n  ^",
     "--attacks: eps: expected 1, got pgd(norm=2)\n  pgd(norm=2, resume=True)\n  ^"),
    ("margins", "out: it holds a run; resume=True resumes it", "--out: it holds a run; --resume resumes it"),
    ("margins", "key: expected an integer", "--seed: expected an integer"),
    ("margins", "root: it needs a folder: pass root=DIR or", "--data-root: it needs a folder: pass --data-root DIR or"),
    ("margins", "checkpoint: it has no architecture: pass model=NETWORK, or",
     "--checkpoint: it has no architecture: pass --model MODULE:FUNCTION, or"),
    ("margins", "out: other settings: seed was 0 and is 1; batch_size was 2 and is 3; checkpoint was 'a' and is 'b'",
     "--out: other settings: --seed was 0 and is 1; --batch-size was 2 and is 3; --checkpoint was 'a' and is 'b'"),
    ("margins", "epochs: no option of this command", "epochs: no option of this command"),
    ("margins", "model(x): expected logits", "model(x): expected logits"),
    ("margins", "a/b.npz: expected images", "a/b.npz: expected images"),
    ("train", "train: expected samples, got none", "--data: expected samples, got none"),
    ("train", "[Errno 28] out: a/b could not be written", "--out: a/b could not be written"),
    ("train", "mixed_precision: expected one of no", "--mixed-precision: expected one of no"),
    ("transfer", "penalty: expected more", "-C: expected more"),
])  # fmt: skip
def test_errors_name_options_instead_of_arguments(command, message, expected):
    assert in_options(message, get_command(cli.app).commands[command]) == expected


def test_errors_of_the_library_name_arguments(tmp_path):
    """The same mistake in Python and on the command line."""
    torch.manual_seed(0)
    weights_file.save(tmp_path / "m.safetensors", nets.build("small-cnn", size=8))
    model, x = weights_file.load(tmp_path / "m.safetensors"), rp.data.load("digits").x[:2]
    arguments = ["margins", "--data", "digits", "--checkpoint", tmp_path / "m.safetensors", "--out", tmp_path / "o"]
    for option, value, argument in (("--attacks", "pdg", {"attacks": "pdg"}), ("--norm", "3", {"norm": "3"})):
        with pytest.raises(ValueError) as ours:
            rp.margins(model, x, **argument)
        assert run(*arguments, option, value) == f"--{ours.value}"


@pytest.mark.parametrize("value, known, expected", [
    ("pdg", ["fgsm", "pgd"], "; did you mean 'pgd'?"), ("FGSM", ["fgsm", "pgd"], "; did you mean 'fgsm'?"),
    ("xyzzy", ["fgsm", "pgd"], ""), (None, ["fgsm"], ""), ("", ["fgsm"], ""),
    ("rotaton", ["Rotation"], "; did you mean 'Rotation'?"),
])  # fmt: skip
def test_did_you_mean(value, known, expected):
    assert did_you_mean(value, known) == expected


@pytest.mark.parametrize("call, meant", [
    (lambda: rp.margins(nn.Flatten(), torch.zeros(1, 2), attacks="fgms"), "fgsm"),
    (lambda: rp.margins(nn.Flatten(), torch.zeros(1, 2), attacks=["PGD"]), "pgd"),
    (lambda: rp.margins(nn.Flatten(), torch.zeros(1, 2), attacks="pgd(esp=2)"), "eps"),
    (lambda: rp.nets.build("LeNet"), "lenet"),
    (lambda: rp.nets.build("tibo_cnn"), "tibo-cnn"),
    (lambda: rp.data.load("MNIST"), "mnist"),
    (lambda: rp.data.load("digts"), "digits"),
    (lambda: rp.data.load("digits", "Train"), "train"),
    (lambda: rp.data.fetch("minst", "."), "mnist"),
    (lambda: rp.data.domain(rp.data.load("digits"), "brightnes:low"), "brightness"),
    (lambda: rp.nuisance.mnist_c("Fogg"), "fog"),
    (lambda: MRT(rp.nuisance.Rotation(3), selection="batches"), "batch"),
    (lambda: rp.ops.logit_gap(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), backend="nativ"), "native"),
])  # fmt: skip
def test_misspelt_names_in_python(call, meant):
    with pytest.raises(ValueError, match=f"; did you mean '{meant}'\\?"):
        call()


@pytest.mark.parametrize("arguments, meant", [
    (["nuisance", "show", "--kernel", "Rotation(30)"], "rotation"),
    (["nuisance", "show", "--kernel", "rotation(degres=30)"], "degrees"),
    (["data", "domains", "digit"], "digits"),
    (["data", "domains", "digits", "--by", "Brightnes"], "brightness"),
    (["train", "--data", "digits", "--out", "o", "--network", "resnet-20"], "resnet20"),
    (["train", "--data", "digits", "--out", "o", "--network", "small-cnn", "--objective", "MRT"], "mrt"),
    (["train", "--data", "digits", "--out", "o", "--network", "small-cnn", "--optimizer", "Adam"], "adam"),
    (["train", "--data", "digits", "--out", "o", "--network", "small-cnn", "--mixed-precision", "fp-16"], "fp16"),
    (["train", "--data", "digits", "--out", "o", "--network", "small-cnn", "--kernel", "fog", "--objective",
      "mrt(selecton='batch')"], "selection"),
    (["transfer", "--classifier", "tibocnn"], "tibo-cnn"),
])  # fmt: skip
def test_misspelt_names_on_the_command_line(tmp_path, monkeypatch, arguments, meant):
    monkeypatch.chdir(tmp_path)
    assert f"; did you mean '{meant}'?" in run(*arguments)
    assert not list(tmp_path.iterdir())


def test_misspelt_options_and_commands():
    assert "No such option: --Atacks; did you mean '--attacks'?" in run("margins", "--Atacks", "fgsm", code=2)
    assert "Did you mean 'margins'" in run("marigns", code=2)


def test_the_version():
    assert run("--version", code=0) == f"robustperf {rp.__version__}\n"


@pytest.fixture
def beside(tmp_path):
    """A folder with a network's module, its weights and images."""
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(40) % 10)
    torch.manual_seed(0)
    save_file({"1.weight": torch.randn(10, 64), "1.bias": torch.zeros(10)}, tmp_path / "m.safetensors")
    return tmp_path


def test_a_network_in_the_current_folder(beside):
    """The console script has no current folder on its path, and has none afterwards."""
    code = (
        "import os, sys; from robustperf.cli.options import make_network; sys.path = [p for p in sys.path if p]; "
        f"os.chdir({str(beside)!r}); before = list(sys.path); make_network('mynet:make'); "
        "assert sys.path == before, sys.path"
    )
    arguments = ["evaluate", "--data", "x.npz", "--checkpoint", "m.safetensors", "--model", "mynet:make", "--cpu"]
    done = subprocess.run([SCRIPT, *arguments], cwd=beside, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    process = processes.start(processes.execute, code, log=beside / "log")
    process.join()
    assert process.exitcode == 0, (beside / "log").read_text()


@pytest.mark.parametrize(
    "images, labels, message",
    [
        ((12, 12), 10, r"--data: expected images that the model takes, got shape \[1, 12, 12\]: mat1 and mat2 shapes"),
        ((8, 8), 11, "--data: expected labels in 0..9, got 10"),
    ],
)
@pytest.mark.parametrize("command", ["train", "margins", "evaluate"])
def test_mismatches_fail_before_any_work(beside, monkeypatch, command, images, labels, message):
    monkeypatch.chdir(beside)
    monkeypatch.delitem(sys.modules, "mynet", raising=False)
    count = 40 + labels  # a wrong label comes last, in a later batch
    np.savez(
        "other.npz",
        images=np.zeros((count, *images), np.uint8),
        labels=np.append(np.arange(count - 1) % 10, labels - 1),
    )
    arguments = [command, "--data", "other.npz", "--model", "mynet:make", "--batch-size", 10, "--out", "out"]
    arguments += [] if command == "train" else ["--checkpoint", "m.safetensors"]
    with pytest.raises(ValueError, match=message):
        raise ValueError(run(*arguments))
    assert not (beside / "out").exists()


def test_mismatches_fail_before_transfer(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((40, 8, 8), np.uint8), labels=np.zeros(40, np.int64))
    error = run("transfer", "--data", tmp_path / "x.npz", "--out", tmp_path / "out")
    assert error == "--clean: expected images of at least two classes, got 20 of one"
    assert not (tmp_path / "out").exists()


def test_a_file_of_torch_save(tmp_path, monkeypatch):
    """A state_dict, by the archive of today and the pickle of old; the command in the error converts it."""
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    model[1].weight.data = model[1].weight.data.T.contiguous().T
    for zipped in (True, False):
        torch.save(model.state_dict(), "it's m.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match="got it's m.pt: torch.save or pickle wrote it") as error:
            weights_file.load("it's m.pt")
        command = str(error.value)[str(error.value).index("python -c") :].partition("; otherwise")[0]
        if zipped:
            subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
        else:  # the same command without a new process
            _, _, script = shlex.split(command)
            exec(script, {})
        weights, _ = weights_file.read("it's m.safetensors")
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
        os.remove("it's m.safetensors")


def test_a_state_dict_alone(tmp_path):
    save_file({"weight": torch.zeros(2, 2)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="checkpoint: .* names no architecture in its header.*: pass model=NETWORK"):
        weights_file.load(tmp_path / "m.safetensors")
    error = run("evaluate", "--data", "digits", "--checkpoint", tmp_path / "m.safetensors")
    assert error.startswith("--checkpoint: ") and "pass --model MODULE:FUNCTION, whose weights these are" in error
