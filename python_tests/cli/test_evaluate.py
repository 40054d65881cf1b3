"""`robustperf evaluate`: its results against plain ones, and its errors."""

import json
import runpy
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import robustperf as rp
from robustperf import cli, nets
from robustperf.nets import weights_file


@pytest.fixture
def weights(tmp_path):
    """Those of a network for RGB images of 10x10 pixels."""
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    weights_file.save(path, nets.build("small-cnn", in_channels=3, size=10))
    return path


def evaluate(*arguments, code=0):
    """Output or error of `robustperf evaluate ARGUMENTS`."""
    result = CliRunner().invoke(cli.app, ["evaluate", *map(str, arguments)], env={"COLUMNS": "200"})
    if isinstance(result.exception, Exception) and code == 1:  # main() makes a line of it
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


def plain_figures(model, dataset):
    """Top-1, top-5 and the mean loss, in float64, sample by sample."""
    first, fifth, losses = [], [], []
    with torch.no_grad():
        logits = model.double().eval()(dataset.x.double())
    for row, label in zip(logits, dataset.y.tolist(), strict=True):
        ranked = row.argsort(descending=True).tolist()
        first.append(ranked[0] == label)
        fifth.append(label in ranked[:5])
        losses.append((row.exp().sum().log() - row[label]).item())
    return np.mean(first), np.mean(fifth), np.mean(losses)


def test_one_row_per_domain(tmp_path, weights):
    out = tmp_path / "figures.json"
    names = ["brightness:-75", "contrast:-255 & brightness:70- | brightness:-60"]
    output = evaluate("--checkpoint", weights, "--data", "digits", "--split", "train", "--domain", names[0], "--domain",
                      names[1], "--limit", 150, "--batch-size", 64, "--out", out)  # fmt: skip
    found = json.loads(out.read_text(), parse_constant=pytest.fail)
    assert found["checkpoint"] == weights_file.digest(weights)
    assert [row["domain"] for row in found["domains"]] == names
    for name, row in zip(names, found["domains"], strict=True):
        dataset = rp.data.domain(rp.data.load("digits", "train"), name).limit(150).resized(10).rgb()
        first, fifth, loss = plain_figures(weights_file.load(weights), dataset)
        assert row["points"] == len(dataset) and row["shape"] == [3, 10, 10]
        assert (row["top1"], row["top5"]) == (first, fifth)
        assert row["loss"] == pytest.approx(loss, rel=1e-5)
        line = next(line for line in output.splitlines() if name in line)
        for text in (str(len(dataset)), f"{first:.2%}", f"{fifth:.2%}", f"{loss:.4f}"):
            assert text in line
    assert found["domains"][0]["top1"] != found["domains"][1]["top1"]


def test_all_images_by_default(weights):
    output = evaluate("--checkpoint", weights, "--data", "digits")
    assert "all images" in output and "599" in output


def test_a_users_network_does_not_set_the_image_size(tmp_path, monkeypatch):
    (tmp_path / "flat_network.py").write_text("""
import torch
def make():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(432, 10))
""")
    monkeypatch.syspath_prepend(tmp_path)
    import flat_network

    path = tmp_path / "flat.safetensors"
    model = flat_network.make()
    weights_file.save(path, model)
    arguments = ["--checkpoint", path, "--data", "digits", "--limit", 50, "--out", tmp_path / "figures.json"]
    assert "names no architecture in its header" in evaluate(*arguments, code=1)
    evaluate(*arguments, "--model", "flat_network:make", "--size", 12, "--rgb")
    row = json.loads((tmp_path / "figures.json").read_text())["domains"][0]
    assert row["loss"] == pytest.approx(plain_figures(model, rp.data.load("digits").limit(50).resized(12).rgb())[2])


def test_a_network_that_takes_any_size(tmp_path):
    path = tmp_path / "model.safetensors"
    weights_file.save(path, nets.build("resnet20", classes=10, width=2))
    out = tmp_path / "figures.json"
    evaluate("--checkpoint", path, "--data", "digits", "--limit", 10, "--out", out)
    assert json.loads(out.read_text())["domains"][0]["shape"] == [3, 8, 8]
    evaluate("--checkpoint", path, "--data", "digits", "--limit", 10, "--size", 20, "--out", out)
    assert json.loads(out.read_text())["domains"][0]["shape"] == [3, 20, 20]


def test_a_folder_of_images(tmp_path, weights):
    numbers = np.random.default_rng(0)
    for split, label, count in (("train", "a", 1), ("train", "b", 1), ("val", "b", 3)):
        (tmp_path / "images" / split / label).mkdir(parents=True)
        for number in range(count):
            pixels = numbers.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / split / label / f"{number}.png")
    out = tmp_path / "figures.json"
    evaluate("--checkpoint", weights, "--data", tmp_path / "images", "--out", out)
    row = json.loads(out.read_text())["domains"][0]
    dataset = rp.data.load(tmp_path / "images", size=10).read()
    assert row["points"] == 3
    assert row["loss"] == pytest.approx(plain_figures(weights_file.load(weights), dataset)[2], rel=1e-5)


@pytest.mark.parametrize("change, message", [
    (["--checkpoint", "nowhere"], "checkpoint: no file nowhere"),
    (["--data", "mnist5"], "mnist5"),
    (["--domain", "brightness:-75", "--domain", "brightness:grey"], "domain: expected brightness: and bounds"),
    (["--size", "12"], "images [B, 3, 10, 10], got"),
    (["--out", "nowhere/figures.json"], "out: expected a file in a folder that exists, got nowhere"),
])  # fmt: skip
def test_wrong_arguments(weights, monkeypatch, change, message):
    def never(*arguments, **named):
        pytest.fail("work was done before the error")

    if "--size" not in change:  # only the network can tell
        monkeypatch.setattr("robustperf.training.evaluate", never)
    assert message in evaluate("--checkpoint", weights, "--data", "digits", *change, code=1)


def test_no_points(tmp_path, weights):
    np.savez(tmp_path / "none.npz", images=np.zeros((0, 8, 8), np.uint8), labels=np.zeros(0, np.int64))
    message = evaluate("--checkpoint", weights, "--data", tmp_path / "none.npz", code=1)
    assert message == "--data: expected at least one point, got an empty none"


def test_as_a_module(weights, monkeypatch, capsys):
    arguments = ["evaluate", "--checkpoint", str(weights), "--data", "digits", "--limit", "10"]
    monkeypatch.setattr(sys, "argv", ["robustperf", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("robustperf.cli", run_name="__main__")
    assert end.value.code == 0 and "all images" in capsys.readouterr().out
