"""`--model timm:NAME` and `onnx:FILE`: networks of other libraries on the command line."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import robustperf as rp
from python_tests.support.libraries import Network, stand_in_timm
from python_tests.support.onnx_files import save
from robustperf import cli
from robustperf.nets import weights_file


@pytest.fixture
def timm(monkeypatch):
    torch.manual_seed(0)
    return stand_in_timm(monkeypatch, classes=10)


def run(*arguments, code=0):
    """Output or error of `robustperf ARGUMENTS`."""
    result = CliRunner().invoke(cli.app, list(map(str, arguments)))
    if isinstance(result.exception, Exception) and code == 1:  # main() makes a line of it
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


def margins(out, *arguments, **options):
    return run("margins", "--data", "digits", "--limit", 12, "--attacks", "fgsm", "--out", out, *arguments, **options)


def test_published_weights_need_no_checkpoint(tmp_path, timm):
    margins(tmp_path, "--model", "timm:resnet18")
    assert timm.calls == [("resnet18", True, 10)]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["shape"] == [3, 8, 8] and summary["network"] == "timm:resnet18"
    message = margins(tmp_path, "--model", "timm:resnet18", "--resume", code=1)  # other random weights
    assert "--checkpoint was" in message


def test_checkpoint_gives_weights_and_the_number_of_classes(tmp_path, monkeypatch):
    timm = stand_in_timm(monkeypatch, classes=3)
    path = tmp_path / "model.safetensors"
    network = Network(10)
    weights_file.save(path, network)
    margins(tmp_path / "out", "--model", "timm:resnet18", "--checkpoint", path)
    assert timm.calls[-1] == ("resnet18", False, 10) and not any(pretrained for _, pretrained, _ in timm.calls)
    model = rp.wrap(network, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.5))
    expected = rp.margins(model, rp.data.load("digits").limit(12).rgb().x, attacks="fgsm")
    np.testing.assert_allclose(np.load(tmp_path / "out" / "margins.npz")["distance"], expected.distance, rtol=1e-5)


def test_size_option_leaves_the_resizing_to_the_model(tmp_path, timm):
    margins(tmp_path, "--model", "timm:resnet18", "--size", 12)
    assert json.loads((tmp_path / "summary.json").read_text())["shape"] == [3, 12, 12]


def test_evaluate_and_train(tmp_path, timm):
    run("train", "--data", "digits", "--limit", 64, "--rgb", "--model", "timm:resnet18", "--epochs", 1, "--batch-size",
        32, "--cpu", "--out", tmp_path / "run")  # fmt: skip
    path = tmp_path / "run" / "model.safetensors"
    assert set(weights_file.read(path)[0]) == {"linear.weight", "linear.bias"}
    output = run(
        "evaluate", "--data", "digits", "--limit", 20, "--model", "timm:resnet18", "--checkpoint", path, "--cpu"
    )
    assert "20" in output


def test_neither_checkpoint_nor_library(tmp_path):
    message = margins(tmp_path, code=1)
    assert message.startswith("--checkpoint: expected a file, or a model with weights of its own, such as timm:NAME")


def test_unknown_name_of_a_library(tmp_path, timm):
    assert "--model: expected a classifier of timm, got 'resnet81'" in margins(
        tmp_path, "--model", "timm:resnet81", code=1
    )


def test_onnx_file(tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 10)
    weights = {name: value.detach().numpy() for name, value in linear.named_parameters()}
    nodes = [("Flatten", ["x"], ["f"], {}), ("Gemm", ["f", "weight", "bias"], ["y"], {"transB": 1})]
    path = save(tmp_path / "model.onnx", nodes, weights, shape=(1, 8, 8))
    margins(tmp_path / "out", "--model", f"onnx:{path}")
    expected = rp.margins(torch.nn.Sequential(torch.nn.Flatten(), linear), rp.data.load("digits").limit(12).x,
                          attacks="fgsm")  # fmt: skip
    np.testing.assert_allclose(np.load(tmp_path / "out" / "margins.npz")["distance"], expected.distance, rtol=1e-3)
    message = margins(tmp_path / "o", "--model", f"onnx:{path}", "--checkpoint", tmp_path / "m.safetensors", code=1)
    assert message.startswith("--checkpoint: expected none with onnx:")
    weights["bias"] = weights["bias"] + 1
    save(path, nodes, weights, shape=(1, 8, 8))
    assert "--checkpoint was" in margins(tmp_path / "out", "--model", f"onnx:{path}", "--resume", code=1)
