"""`robustperf transfer`: its results against those computed by hand, and its errors."""

import json

import pytest
import torch
from matplotlib.image import imread
from sklearn.svm import SVC
from typer.testing import CliRunner

import robustperf as rp
from robustperf import cli, plot
from robustperf.equality import same
from robustperf.nets import weights_file
from robustperf.nuisance import Brightness
from robustperf.training.run_folder import RunFolder
from robustperf.transfer import PairedAutoencoder

QUICK = ("--code", 8, "--width", 4, "--hidden", 16, "--epochs", 2, "--limit", 50)


def transfer(*arguments, code=0):
    """Output or error of `robustperf transfer ARGUMENTS`."""
    result = CliRunner().invoke(cli.app, ["transfer", *map(str, arguments)], env={"COLUMNS": "200"})
    if isinstance(result.exception, Exception) and code == 1:  # main() makes a line of it
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


def test_its_results_equal_those_computed_by_hand(tmp_path):
    output = transfer(
        "--kernel", "brightness((0.3, 0.6))", "--clean", 300, "--shifted", 100, "--seed", 3, "--out", tmp_path, *QUICK
    )
    found = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert (found["clean"], found["shifted"], found["points"]) == (300, 100, 50)

    train, test = rp.data.load("digits", "train"), rp.data.load("digits", "test").limit(50)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(3))
    svc = SVC(C=5, gamma=0.05).fit(train.x[order[:300]].flatten(1), train.y[order[:300]])
    key = rp.random.fold_in(rp.random.key(3), 1)
    shifted = Brightness((0.3, 0.6)).draw(test.x, key=key, index=torch.arange(50))[0]
    autoencoder = weights_file.load(tmp_path / "autoencoder.safetensors", PairedAutoencoder((1, 8, 8), 8, 4, 16))
    for name, x in (("clean", test.x), ("shifted", shifted)):
        before = svc.score(x.flatten(1).numpy(), test.y)
        after = svc.score(autoencoder.transfer(x).flatten(1).numpy(), test.y)
        assert (found["accuracy"]["before"][name], found["accuracy"]["after"][name]) == (before, after)
        line = next(line for line in output.splitlines() if f"│ {name} " in line)
        assert f"{before:.2%}" in line and f"{after:.2%}" in line
    assert str(tmp_path / "transfer.png") in output.replace("\n", "")
    picture = imread(tmp_path / "transfer.png")
    assert picture.shape[0] > 2 * picture.shape[1] and picture.std() > 0.1  # eight rows of three


def test_the_output_and_the_files(tmp_path, monkeypatch):
    drawn, read = [], plot.image_grid

    def image_grid(*arguments, **named):
        drawn.append(named)
        return read(*arguments, **named)

    monkeypatch.setattr(plot, "image_grid", image_grid)
    output = transfer("--clean", 600, "--shifted", 400, "--out", tmp_path, *QUICK)
    assert drawn[0]["names"] == ["x̃", "T(x̃)"]
    assert output.count("epoch 1/2") == output.count("epoch 2/2") == 1
    warning = next(line for line in output.splitlines() if line.startswith("warning: "))
    assert "on 198 clean images x, the accuracy of f(x)" in warning  # those that nothing was trained on
    assert json.loads((tmp_path / "summary.json").read_text())["warnings"] == [warning.removeprefix("warning: ")]


def test_no_warning_for_a_good_map(tmp_path, monkeypatch):
    monkeypatch.setattr(PairedAutoencoder, "_transfer", lambda self, x: x)
    output = transfer("--out", tmp_path, *QUICK)
    assert "warning:" not in output and json.loads((tmp_path / "summary.json").read_text())["warnings"] == []


@pytest.mark.parametrize("classifier", ["svc", "small-cnn"])
def test_an_interrupted_run_is_resumed(tmp_path, monkeypatch, classifier):
    """Ctrl-C while T is learned, and for a network before that too; the resumed run ends as an uninterrupted one."""
    arguments = ("--classifier", classifier, "--classifier-epochs", 2, *QUICK, "--epochs", 3)
    save, after = RunFolder.save, []

    def interrupted(folder, *parts):
        save(folder, *parts)
        if after and folder.folder.name == after[0] and len(parts[-1].epochs) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "save", interrupted)
    for place in ["autoencoder"] if classifier == "svc" else ["classifier", "autoencoder"]:
        after[:], again = [place], ["--resume"] * (tmp_path / "parts").exists()
        output = transfer(*arguments, "--out", tmp_path / "parts", *again, code=130)
        state = tmp_path / "parts" / place / "checkpoint.safetensors"
        assert "Interrupted. --resume" in output and str(state) in output.replace("\n", "")
    after.clear()
    assert "--out: " in (error := transfer(*arguments, "--out", tmp_path / "parts", code=1)) and "--resume" in error
    error = transfer(*arguments, "--seed", 1, "--out", tmp_path / "parts", "--resume", code=1)
    assert "--seed was 0 and is 1" in error
    output = transfer(*arguments, "--out", tmp_path / "parts", "--resume")
    assert "epoch 3/3" in output and "epoch 1/3" not in output
    transfer(*arguments, "--out", tmp_path / "whole")
    one, other = (weights_file.read(tmp_path / each / "autoencoder.safetensors")[0] for each in ("parts", "whole"))
    assert same(one, other)
    one, other = (json.loads((tmp_path / each / "summary.json").read_text()) for each in ("parts", "whole"))
    assert one == other


def test_a_network_and_all_the_images(tmp_path):
    output = transfer("--classifier", "small-cnn", "--classifier-epochs", 1, "--out", tmp_path, *QUICK)
    found = json.loads((tmp_path / "summary.json").read_text())
    assert (found["clean"], found["shifted"]) == (599, 599) and "small-cnn on digits" in output


def test_without_shifted_images(tmp_path):
    transfer("--clean", 200, "--shifted", 0, "--out", tmp_path, *QUICK)
    assert json.loads((tmp_path / "summary.json").read_text())["shifted"] == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--clean", 1000, "--shifted", 300), "--shifted: expected at most 198 beside 1000 clean images"),
        (("--clean", 1199), "--clean: expected at most the 1198 training images, got 1199"),
        (("--classifier", "forest"), "--classifier: expected one of svc"),
        (("--gamma", "big"), "--gamma: expected a number, scale or auto, got 'big'"),
        (("--kernel", "nothing"), "--kernel: expected one of"),
        (
            ("--kernel", "background_colour"),
            r"--kernel: expected one that keeps the shape \(1, 8, 8\), got \(3, 8, 8\)",
        ),
        (("--size", 10), "image_shape: expected sides divisible by 4, got 10 x 10"),
    ],
)
def test_bad_input(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        raise ValueError(transfer(*QUICK, "--out", tmp_path / "out", *arguments, code=1))
    assert not (tmp_path / "out").exists()
