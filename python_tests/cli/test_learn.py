"""`robustperf nuisance learn`, and learned kernels in the other commands."""

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from typer.testing import CliRunner

from python_tests.support.learned import domains, kernel
from robustperf import cli
from robustperf.cli.build import build_kernel
from robustperf.nuisance import Brightness, Compose, LearnedKernel

QUICK = ("--width", 2, "--iterations", 4, "--checkpoint-steps", 2)


def run(*arguments, code=0):
    """The output, or the error, of `robustperf ARGUMENTS`."""
    result = CliRunner().invoke(cli.app, list(map(str, arguments)), env={"COLUMNS": "200"})
    if isinstance(result.exception, Exception) and code == 1:  # main() makes a line of it
        return str(result.exception)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


@pytest.fixture
def data(tmp_path):
    """An npz file of dark and bright images."""
    x = torch.cat(domains(count=10)).numpy()
    np.savez(tmp_path / "mine.npz", images=x, labels=np.arange(20) % 2)
    return tmp_path / "mine.npz"


def test_a_kernel_is_learned_shown_and_trained_with(data, tmp_path):
    out = tmp_path / "g"
    domain = ("--from", data, "--domain", "brightness:0-110", "--to", "brightness:140-255")
    output = run("nuisance", "learn", *domain, "--out", out, "--snapshot", 3, "--share", "content", *QUICK)
    learned = LearnedKernel.load(out)
    assert learned.facts["iterations"] == 4 and learned.facts["share"] == "content"
    assert LearnedKernel.load(out / "snapshots" / "3").facts["iterations"] == 3
    assert "brightness distance" in output and "spread" in output and str(out / "kernel.png") in output
    assert f"robustperf nuisance show --kernel {out} --data {data}" in output
    assert run("nuisance", "learn", *domain, "--out", out, "--share", "content", *QUICK, code=1).startswith("--out: ")
    run("nuisance", "learn", *domain, "--out", out, "--snapshot", 3, "--share", "content", *QUICK, "--resume")

    picture = tmp_path / "grid.png"
    shown = ("--data", data, "--domain", "brightness:0-110", "--points", 2, "--draws", 3, "--out", picture)
    output = run("nuisance", "show", "--kernel", out, *shown)
    assert repr(learned) in output and "delta[1]" in output
    narrow = imread(picture).shape[1]
    run("nuisance", "show", "--kernel", out, *shown, "--to", "brightness:140-255")
    assert imread(picture).shape[1] > narrow  # a column more

    run("train", "--data", data, "--network", "small-cnn", "--objective", "mrt", "--kernel", out, "--k", 2, "--out",
        tmp_path / "t", "--epochs", 1, "--batch-size", 8, "--validation", 0)  # fmt: skip
    assert (tmp_path / "t" / "model.safetensors").exists()


def test_learned_kernels_in_a_sum(tmp_path, monkeypatch):
    made = kernel()
    made.save(tmp_path / "g")
    assert build_kernel(str(tmp_path / "g")) == made
    assert build_kernel(f"learned({str(tmp_path / 'g')!r}) + brightness(0.2)") == Compose([made, Brightness(0.2)])
    monkeypatch.chdir(tmp_path)
    assert build_kernel("g") == made
    (tmp_path / "brightness").mkdir()  # a known kernel's name remains that
    assert isinstance(build_kernel("brightness"), type(Brightness()))
    assert build_kernel("./g/kernel.safetensors") == made


def test_errors(data, tmp_path):
    for text in (tmp_path / "none", "runs/none"):
        with pytest.raises(FileNotFoundError, match="kernel: no file .*none"):
            build_kernel(str(text))
    with pytest.raises(FileNotFoundError, match="kernel: no file none"):
        build_kernel("learned('none')")
    with pytest.raises(ValueError, match="expected one of affine, .*translation, learned"):
        build_kernel("none")
    learn = ("nuisance", "learn", "--from", data, "--out", tmp_path / "g")
    assert run(*learn, code=1).startswith("--to: expected domain B, such as --to brightness:high or --to-data NAME")
    assert run(*learn, "--to-data", data, code=1) == "--to: expected another domain than a, got the same images"
    to = ("--to", "brightness:140-255")
    assert run(*learn, *to, "--batch-size", 30, code=1).startswith("--from: expected at least one batch of 30 images")
    assert run(*learn, *to, "--share", "al", code=1).endswith("did you mean 'all'?")
    assert not (tmp_path / "g").exists()
    output = run("nuisance", "show", "--kernel", "rotation(30)", "--data", data, "--points", 12, "--to",
                 "brightness:140-255", "--out", tmp_path / "x.png", code=1)  # fmt: skip
    assert output.startswith("--to: expected 12 images of shape [1, 8, 8], got 10")
