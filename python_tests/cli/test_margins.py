"""`robustperf margins` on domains, resized images and folders; test_cli.py has the rest."""

import json
import pickle
import warnings
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.ensemble import RandomForestClassifier
from typer.testing import CliRunner

import robustperf as rp
from robustperf import cli, nets, processes
from robustperf.attacks import FGSM, HopSkipJump, SurFree
from robustperf.cli.margins import lattice_step
from robustperf.nets import weights_file


@pytest.fixture
def weights(tmp_path):
    """Those of a network for RGB images of 10x10 pixels."""
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    weights_file.save(path, nets.build("small-cnn", in_channels=3, size=10))
    return path


def margins(*arguments, code=0):
    """Output or error of `robustperf margins ARGUMENTS` with FGSM."""
    result = CliRunner().invoke(cli.app, ["margins", "--attacks", "fgsm", *map(str, arguments)])
    if isinstance(result.exception, Exception) and code == 1:  # main() makes a line of it
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


def test_a_domain_is_resized_for_the_network(tmp_path, weights):
    arguments = ["--checkpoint", weights, "--data", "digits", "--limit", 30, "--batch-size", 20]
    out = tmp_path / "out"
    assert "digits brightness:80-, 30 points" in margins(*arguments, "--domain", "brightness:80-", "--out", out)
    dataset = rp.data.domain(rp.data.load("digits"), "brightness:80-").limit(30).resized(10).rgb()
    model = weights_file.load(weights)
    ours = rp.margins(model, dataset.x, attacks=[FGSM()], batch_size=20)
    np.testing.assert_array_equal(np.load(out / "margins.npz")["distance"], ours.distance.numpy())
    summary = json.loads((out / "summary.json").read_text())
    assert summary["shape"] == [3, 10, 10]
    right = model.eval()(dataset.x).argmax(1) == dataset.y
    assert summary["accuracy"] == right.double().mean().item()

    message = margins(*arguments, "--out", out, "--resume", code=1)
    assert "data was 'digits brightness:80-' and is 'digits'" in message
    assert "images [B, 3, 10, 10], got" in margins(*arguments, "--size", 12, "--out", tmp_path / "other", code=1)


@pytest.mark.parametrize("preset", ["tibo", "strong", None])
def test_presets_by_name(tmp_path, weights, preset):
    arguments = [
        "--checkpoint",
        weights,
        "--data",
        "digits",
        "--limit",
        3,
        "--size",
        10,
        "--rgb",
        "--out",
        tmp_path / "out",
    ]
    chosen = [] if preset is None else ["--attacks", preset]
    result = CliRunner().invoke(cli.app, ["margins", *map(str, [*arguments, *chosen])])
    assert result.exit_code == 0, result.output
    x = rp.data.load("digits").limit(3).resized(10).rgb().x
    ours = rp.margins(weights_file.load(weights), x, **({} if preset is None else {"attacks": preset}))
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "margins.npz")["distance"], ours.distance.numpy())
    assert ours.attacks == (("FGSM", "PGD", "BG") if preset == "tibo" else ("ShrinkingBall",))


def test_a_folder_of_images(tmp_path, weights):
    numbers = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "images" / "val" / label).mkdir(parents=True)
        pixels = numbers.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / "val" / label / "0.png")
    margins("--checkpoint", weights, "--data", tmp_path / "images", "--batch-size", 1, "--out", tmp_path / "out")
    x = rp.data.load(tmp_path / "images", size=10).read().x
    ours = rp.margins(weights_file.load(weights), x, attacks=[FGSM()], batch_size=1)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "margins.npz")["distance"], ours.distance.numpy())


def test_processes_share_no_gpu(tmp_path, weights, monkeypatch):
    several = SimpleNamespace(num_processes=2, device=torch.device("cpu"))
    monkeypatch.setattr(processes, "join", lambda cpu=False: several)
    message = margins("--checkpoint", weights, "--data", "digits", "--device", "cuda:0", "--out", tmp_path, code=1)
    assert message == "--device: expected cuda, for each of 2 processes uses its own GPU, got 'cuda:0'"


class Confident(torch.nn.Module):
    """One that ends in a softmax, and is sure."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    def forward(self, x):
        return (1e5 * self.net(x)).softmax(1)


def test_diagnostics_are_printed_and_written(tmp_path, monkeypatch):
    monkeypatch.setattr("robustperf.cli.options.make_network", lambda path: Confident())
    weights = tmp_path / "model.safetensors"
    torch.manual_seed(0)
    save_file(Confident().state_dict(), weights)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # the table's lines are enough, once for all parts
        output = margins(
            "--checkpoint",
            weights,
            "--model",
            "here:Confident",
            "--data",
            "digits",
            "--limit",
            30,
            "--batch-size",
            8,
            "--out",
            tmp_path / "out",
        )
    assert output.count("warning: the outputs look like probabilities at 100.00% of the points") == 1
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["diagnostics"]
    assert summary["probabilities"] == summary["points"] == 30 and summary["fractions"]["probabilities"] == 1
    assert summary["flat"]["FGSM"] > 0 and len(summary["messages"]) == output.count("warning: ")


def test_attacks_that_query_labels(tmp_path, weights):
    arguments = ["--data", "digits", "--limit", 4, "--size", 10, "--rgb", "--out", tmp_path / "out"]
    margins(
        "--checkpoint", weights, *arguments, "--attacks", "surfree(queries=50),hopskipjump(queries=50)", "--norm", 1
    )
    x = rp.data.load("digits").limit(4).resized(10).rgb().x
    attacks = [SurFree(1, queries=50), HopSkipJump(1, queries=50)]
    ours = rp.margins(weights_file.load(weights), x, attacks=attacks, norm=1)
    found = rp.Margins.load(tmp_path / "out" / "margins.npz")
    assert found.attacks == ("SurFree", "HopSkipJump") and torch.equal(found.distance, ours.distance)


def test_estimators_are_referred_to_python(tmp_path, monkeypatch, weights):
    """The command reads neither pickles nor estimators; its errors name the function that takes them."""
    arguments = ["--data", "digits", "--out", tmp_path / "out"]
    forest = RandomForestClassifier(2).fit(np.eye(3), [0, 1, 2])
    (tmp_path / "forest.pkl").write_bytes(pickle.dumps(forest))
    joblib.dump(forest, tmp_path / "forest.joblib")
    for name in ("forest.pkl", "forest.joblib"):
        error = margins("--checkpoint", tmp_path / name, *arguments, code=1)
        assert "expected a safetensors file" in error and "robustperf.margins(estimator, X)" in error
    (tmp_path / "forests.py").write_text(
        "from sklearn.ensemble import RandomForestClassifier\ndef make():\n    return RandomForestClassifier()\n"
    )
    monkeypatch.chdir(tmp_path)
    error = margins("--checkpoint", weights, "--model", "forests:make", *arguments, code=1)
    assert "got a RandomForestClassifier from forests:make" in error and "robustperf.margins(estimator, X)" in error


def test_the_norm_0(tmp_path, weights):
    arguments = ["--checkpoint", weights, "--data", "digits", "--limit", 4, "--size", 10, "--rgb", "--norm", 0]
    out = tmp_path / "out"
    assert "4 points, norm 0" in margins(*arguments, "--attacks", "sigma_zero(steps=5)", "--out", out, "--keep-points")
    found = rp.Margins.load(out / "margins.npz")
    dataset = rp.data.load("digits").limit(4).resized(10).rgb()
    changed = (found.point != dataset.x).flatten(1).sum(1).double()
    assert found.norm == 0 and found.diameter == 300 and found.found.any()
    assert found.distance[found.found].tolist() == changed[found.found].tolist()
    assert json.loads((out / "summary.json").read_text())["norm"] == 0
    message = margins(*arguments, "--out", tmp_path / "other", code=1)  # with FGSM
    assert "expected ones of the norm 0 (fast, strong, sigma_zero, shrinking_support), got fgsm" in message


@pytest.mark.parametrize("text, step", [("1/255", 1 / 255), ("0.0039", 0.0039), (" 1 / 16 ", 1 / 16), ("1", 1.0)])
def test_the_step_of_a_lattice_is_a_fraction_or_a_number(text, step):
    assert lattice_step(text) == step


@pytest.mark.parametrize("text", ["0", "-1/255", "255", "1/0", "8bit", "nan", "inf", "1e-400", "1/2/3", ""])
def test_wrong_steps_of_a_lattice(text):
    with pytest.raises(ValueError, match=f"^lattice: expected a step above 0 .*, got '{text}'$"):
        lattice_step(text)


def test_points_on_a_lattice(tmp_path, weights):
    arguments = ["--checkpoint", weights, "--data", "digits", "--limit", 4, "--size", 10, "--rgb", "--lattice", "1/255"]
    out = tmp_path / "out"
    margins(*arguments, "--out", out, "--keep-points")
    found = rp.Margins.load(out / "margins.npz")
    x = rp.data.load("digits").limit(4).resized(10).rgb().x
    model = weights_file.load(weights).eval()
    assert found.found.any()
    steps = 255 * found.point[found.found].double()
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
    saved = steps.round().to(torch.uint8).float() / 255  # as an image file holds them
    assert (model(saved).argmax(1) != model(x[found.found]).argmax(1)).all()
    distance = (found.point - x).double().flatten(1).norm(dim=1)
    torch.testing.assert_close(found.distance[found.found], distance[found.found])
    assert json.loads((out / "summary.json").read_text())["lattice"] == 1 / 255
    margins(*arguments[:-2], "--out", tmp_path / "plain")
    plain = rp.Margins.load(tmp_path / "plain" / "margins.npz")
    assert (found.distance >= plain.distance).all() and rp.Margins.load(out / "margins.npz").point is not None
    error = margins(*arguments[:-2], "--out", out, "--resume", "--keep-points", code=1)
    assert "lattice was 0.00392" in error
    margins(*arguments, "--out", tmp_path / "without")
    without = rp.Margins.load(tmp_path / "without" / "margins.npz")
    assert without.point is None and torch.equal(without.distance, found.distance)
    assert margins(*arguments[:-1], "0", "--out", tmp_path / "x", code=1).startswith("--lattice: expected a step above")
