"""`robustperf train`: its files and output, resuming, and its errors."""

import copy
import csv
import math
import shlex
import sys

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from typer.testing import CliRunner

import robustperf as rp
from robustperf import cli, nets, plot, training
from robustperf.attacks import PGD
from robustperf.cli.build import build_network, build_objective
from robustperf.cli.training_options import parse_rate
from robustperf.nets import weights_file
from robustperf.nuisance import Brightness, ImpulseNoise

DIGITS = ["--data", "digits", "--network", "small-cnn", "--limit", "200", "--batch-size", "20", "--epochs", "1"]
FILES = {"checkpoint.safetensors", "curves.png", "metrics.csv", "model.safetensors", "steps.csv"}


def train(*arguments, code=0):
    """Output or error of `robustperf train ARGUMENTS`."""
    result = CliRunner().invoke(cli.app, ["train", *map(str, arguments)], env={"COLUMNS": "200"})
    if isinstance(result.exception, Exception) and code == 1:  # main() makes a line of it
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


def weights(folder):
    return weights_file.read(folder / "model.safetensors")[0]


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_a_run_equals_that_of_python(tmp_path):
    out = tmp_path / "run"
    output = train("--data", "digits", "--network", "lenet", "--size", 16, "--rgb", "--domain", "brightness:70-",
                   "--classes", "9,0-4", "--limit", 200, "--objective", "mrt(chunk=1)", "--kernel", "brightness(0.4)",
                   "--k", 2, "--weight", 0.5, "--epochs", 2, "--batch-size", 20, "--optimizer", "sgd",
                   "--lr", "0=1e-2,1=1e-3", "--clip", 1, "--seed", 3, "--validation", 0.2, "--cpu",
                   "--out", out)  # fmt: skip
    dataset = rp.data.domain(rp.data.load("digits", "train"), "brightness:70-")
    dataset = dataset.select_classes([9, 0, 1, 2, 3, 4]).limit(200).resized(16).rgb()
    torch.manual_seed(3)
    model = nets.build("lenet", in_channels=3, size=16, classes=6)
    objective = training.MRT(Brightness(0.4), 2, 0.5)
    fitted = training.fit(
        model,
        objective,
        dataset,
        validation=0.2,
        epochs=2,
        batch_size=20,
        optimizer="sgd",
        lr={0: 1e-2, 1: 1e-3},
        clip=1.0,
        seed=3,
        cpu=True,
        progress=False,
    )
    assert_same(weights(out), model.state_dict())
    assert weights_file.load(out / "model.safetensors").architecture == model.architecture

    assert {path.name for path in out.iterdir()} - {".lock", "settings.json"} == FILES
    assert imread(out / "curves.png").std() > 0.05
    rows = list(csv.DictReader(open(out / "metrics.csv")))
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in fitted.epochs]
    accuracy = fitted.epochs[fitted.best - 1]["validation_accuracy"]
    assert "Training on digits brightness:70-" in output and f"{accuracy:.2%}" in output
    for name in FILES:
        assert str(out / name) in output
    commands = [shlex.split(line) for line in output.splitlines() if line.startswith("  robustperf")]
    assert [command[1] for command in commands] == ["evaluate", "margins"]
    rest = ["--batch-size", "50", "--limit", "50"], ["--attacks", "fgsm", "--limit", "20"]
    for command, further in zip(commands, rest, strict=True):
        result = CliRunner().invoke(cli.app, [*command[1:], *further])
        assert result.exit_code == 0, result.output
        assert "digits" in result.output


def test_a_run_is_resumed(tmp_path):
    arguments = [*DIGITS, "--objective", "gaussian(0.1)", "--validation", 0]
    assert "of epoch 1, the last" in train(*arguments, "--out", tmp_path / "parts")
    assert "holds an earlier run" in train(*arguments, "--out", tmp_path / "parts", code=1)
    message = train(*arguments, "--lr", 0.5, "--out", tmp_path / "parts", "--resume", code=1)
    assert "--lr was 'None' and is '0.5'" in message
    train(*arguments, "--epochs", 2, "--out", tmp_path / "parts", "--resume")
    output = train(*arguments, "--epochs", 2, "--out", tmp_path / "whole")
    assert "epoch 2, the last" in output
    assert_same(weights(tmp_path / "parts"), weights(tmp_path / "whole"))


def test_ctrl_c_reports_the_checkpoint(tmp_path, monkeypatch):
    calls = []

    def interrupted(self, *arguments, _loss=training.ERM.loss, **named):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return _loss(self, *arguments, **named)

    monkeypatch.setattr(training.ERM, "loss", interrupted)
    arguments = [*DIGITS, "--out", tmp_path / "run"]
    assert "no checkpoint yet" in train(*arguments, code=130)
    calls.clear()
    output = train(*arguments, "--resume", "--checkpoint-steps", 2, code=130)
    assert "--resume continues after step 4" in output and str(tmp_path / "run" / "checkpoint.safetensors") in output
    monkeypatch.undo()
    train(*arguments, "--resume")
    train(*DIGITS, "--out", tmp_path / "whole")
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_a_loss_of_nan_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys,
        "argv",
        ["robustperf", "train", *DIGITS, "--optimizer", "sgd", "--lr", "1e30", "--out", str(tmp_path / "run")],
    )
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("robustperf: loss: expected a finite number, got") and "step 2" in error


KERNEL = Brightness(0.4)
PUBLISHED = {"loss": "cross_entropy"}
BATCH = "mrt(selection='batch', selection_dtype='bfloat16', chunk=1)"


@pytest.mark.parametrize("text, given, expected", [
    ("erm", {}, training.ERM()),
    ("mrt", {"kernel": KERNEL}, training.MRT(KERNEL)),
    ("mrt(4)", {"kernel": KERNEL, "weight": 0.0}, training.MRT(KERNEL, 4, 0)),
    ("mrt(k=4)", {"kernel": KERNEL, "k": 7}, training.MRT(KERNEL, 4)),
    (BATCH, {"kernel": KERNEL}, training.MRT(KERNEL, selection="batch", selection_dtype=torch.bfloat16, chunk=1)),
    ("mrt", {"kernel": KERNEL}, training.MRT(KERNEL, selection="batch")),
    ("mrt(selection='sample')", {"kernel": KERNEL}, training.MRT(KERNEL, selection="sample")),
    ("mat(step=0.2)", {"kernel": KERNEL, "k": 3}, training.MAT(KERNEL, 3, 0.2)),
    ("mat(start='identity')", {"kernel": KERNEL}, training.MAT(KERNEL, start="identity")),
    ("mda", {"kernel": KERNEL, "weight": 0.5}, training.MDA(KERNEL, weight=0.5)),
    ("pgd", {}, training.AdversarialTraining()),
    ("pgd(steps=3)", {}, training.AdversarialTraining(PGD(math.inf, eps=8 / 255, step=0.01, steps=3, **PUBLISHED))),
    ("pgd(inf, weight=1)", {"weight": 2}, training.AdversarialTraining(weight=1)),
    ("pgd(norm=2, eps=0.5)", {"weight": 1}, training.AdversarialTraining(PGD(2, eps=0.5, steps=20, **PUBLISHED), 1)),
    ("gaussian(0.2)", {"weight": 0.5}, training.GaussianAugmentation(0.2, 0.5)),
    ("hein(0.2)", {}, training.CrossLipschitz(0.2)),
    ("hein", {"weight": 0.5}, training.CrossLipschitz(0.5)),
])  # fmt: skip
def test_objectives(text, given, expected):
    assert build_objective(text, **given) == expected


def test_augmix():
    objective = build_objective("augmix(2, width=4)", weight=6)
    assert (objective.weight, objective.kernel.severity, objective.kernel.width) == (6, 2, 4)


def test_cotrain():
    classifier = nets.SmallCNN(3)
    objective = build_objective("cotrain(width=4, layers=2)", None, None, 0.5, classifier, 3)
    assert objective.classifier is classifier and objective.weight == 0.5
    assert objective.generator(torch.zeros(2, 3, 9, 9)).shape == (2, 3, 9, 9)
    assert [p.shape[0] for p in objective.generator.parameters() if p.dim() == 4] == [4, 4, 3]


def test_cotrain_equals_that_of_python(tmp_path):
    arguments = [*DIGITS, "--objective", "cotrain(0.5, width=4, layers=1)", "--optimizer", "adam"]
    output = train(*arguments, "--out", tmp_path / "run")
    assert str(tmp_path / "run" / "generator.safetensors") in output and "CoTrain(weight=0.5" in output
    torch.manual_seed(0)
    model, generator = nets.build("small-cnn", in_channels=1, size=8, classes=10), nets.TiboGenerator(1, 4, 1)
    data = rp.data.load("digits", "train").limit(200)
    training.fit(
        model, training.CoTrain(model, generator, 0.5), data, epochs=1, batch_size=20, optimizer="adam", progress=False
    )
    assert_same(weights(tmp_path / "run"), model.state_dict())
    assert_same(weights_file.read(tmp_path / "run" / "generator.safetensors")[0], generator.state_dict())


@pytest.mark.filterwarnings("ignore:source")  # one epoch is too few
def test_adda_adapts_the_classifier_of_a_checkpoint(tmp_path):
    source, out = tmp_path / "source", tmp_path / "adda"
    arguments = [*DIGITS, "--optimizer", "adam", "--lr", "0.02", "--domain", "brightness:-70"]
    train(*arguments, "--out", source)
    target = ["--objective", "adda(width=8)", "--target", "brightness:70-", "--out", out]
    assert "checkpoint: expected the weights of a classifier" in train(*arguments, *target, code=1)
    output = train(*arguments, *target, "--checkpoint", source / "model.safetensors")
    assert str(out / "discriminator.safetensors") in output and "ADDA(target=" in output
    digits = rp.data.load("digits", "train")
    dark, bright = (rp.data.domain(digits, f"brightness:{level}").limit(200) for level in ("-70", "70-"))
    torch.manual_seed(0)
    model = nets.build("small-cnn", in_channels=1, size=8, classes=10)
    weights_file.load(source / "model.safetensors", model)
    objective = training.ADDA(bright, model, width=8)
    training.fit(
        model, objective, dark, validation=None, epochs=1, batch_size=20, optimizer="adam", lr=0.02, progress=False
    )
    assert_same(weights(out), model.state_dict())
    assert_same(weights_file.read(out / "discriminator.safetensors")[0], objective.discriminator.state_dict())


@pytest.mark.parametrize("text, given, message", [
    ("mrt", {}, "such as --kernel"),
    ("mat(step=0.1)", {"k": 3}, "such as --kernel"),
    ("erm, mrt", {"kernel": KERNEL}, "objective: expected one, got 2"),
    ("adversarial", {}, "pgd, gaussian, augmix, hein, cotrain, adda\n  adversarial\n  ^"),
    ("mat", {"kernel": ImpulseNoise(0.1)}, "kernel: expected one with a gradient in delta, got impulse_noise(0.1)"),
    ("mrt(selection='best')", {"kernel": KERNEL}, "selection: expected one of"),
    ("mrt(selection_dtype='float64')", {"kernel": KERNEL}, "selection_dtype: expected None, torch.bfloat16"),
    ("pgd(norm=1)", {}, "norm: expected 2 or inf"),
    ("erm", {"kernel": KERNEL}, "kernel: expected none for the objective erm"),
    ("augmix", {"kernel": KERNEL}, "kernel: expected none for the objective augmix"),
    ("pgd", {"k": 3}, "k: expected none for the objective pgd, which does not take it, got 3"),
    ("erm", {"weight": 0.0}, "weight: expected none"),
    ("hein", {}, "weight"),
    ("hein(0)", {}, "weight: expected a finite number above 0"),
    ("cotrain", {"classifier": nets.SmallCNN()}, "missing 1 required positional argument: 'weight'"),
    ("cotrain(-1)", {"classifier": nets.SmallCNN()}, "weight: expected a finite number >= 0"),
    ("cotrain(1, width=0)", {"classifier": nets.SmallCNN()}, "width: expected an integer above 0"),
    ("adda", {"classifier": nets.SmallCNN()}, "objective: expected a domain without labels, such as --target"),
    ("adda(width=0)", {"classifier": nets.SmallCNN(1, 8), "target": rp.data.load("digits")}, "width: expected an"),
    ("erm", {"target": rp.data.load("digits")}, "target: expected none for the objective erm"),
    ("cotrain(1)", {"k": 3, "classifier": nets.SmallCNN()}, "k: expected none for the objective cotrain"),
])  # fmt: skip
def test_wrong_objectives(text, given, message):
    with pytest.raises(ValueError) as error:
        build_objective(text, **given)
    assert message in str(error.value)


@pytest.mark.parametrize("text, rate", [
    ("0.05", 0.05), ("1", 1.0), ("0.05:0.001", (0.05, 0.001)), ("0=1e-3,5=1e-4", {0: 1e-3, 5: 1e-4}), ("0=1", {0: 1.0}),
])  # fmt: skip
def test_learning_rates(text, rate):
    assert parse_rate(text) == rate and type(parse_rate(text)) is type(rate)


@pytest.mark.parametrize("text", ["", "fast", "1:2:3", "1:", "0=1,2", "0=1,0=2", "0.5=1", "0=1=2", "0=1,"])
def test_wrong_learning_rates(text):
    with pytest.raises(ValueError, match="^lr: expected a rate such as 0.05, a first"):
        parse_rate(text)


@pytest.mark.parametrize("name", nets.NAMES)
def test_networks_fit_the_images(name):
    model = build_network(name, (2, 16, 16), 7).eval()
    assert model(torch.zeros(1, 2, 16, 16)).shape == (1, 7)


def test_batch_normalisation():
    batch_norms = [
        m for m in build_network("robey-cnn", (1, 12, 12), 3, True).modules() if isinstance(m, torch.nn.BatchNorm2d)
    ]
    assert len(batch_norms) == 3


@pytest.mark.parametrize("name, shape, batch_norm, message", [
    ("robey-cnn", (1, 8, 8), False, "got 8, for images of 8x8 pixels; --size resizes them"),
    ("lenet", (1, 20, 30), False, "network: expected square images for lenet, got 20x30"),
    ("lenet", (1, 20, 20), True, "batch_norm: expected the network robey-cnn, got lenet"),
    ("vgg", (1, 20, 20), False, "'vgg'"),
])  # fmt: skip
def test_networks_that_do_not_fit(name, shape, batch_norm, message):
    with pytest.raises(ValueError) as error:
        build_network(name, shape, 10, batch_norm)
    assert message in str(error.value)


def test_a_domain_has_the_classes_of_its_data_set(tmp_path):
    images = np.full((60, 6, 6), 200, np.uint8)
    images[:40] = 20
    np.savez(tmp_path / "two.npz", images=images, labels=np.repeat([0, 1, 4], 20))
    train(
        "--data",
        tmp_path / "two.npz",
        "--network",
        "small-cnn",
        "--domain",
        "brightness:-40",
        "--batch-size",
        20,
        "--epochs",
        1,
        "--out",
        tmp_path / "run",
    )
    model = weights_file.load(tmp_path / "run" / "model.safetensors")
    assert model.architecture == ("small-cnn", {"in_channels": 1, "size": 6, "classes": 5})


def test_a_users_network(tmp_path, monkeypatch):
    (tmp_path / "own_network.py").write_text("""
import torch
def make():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
""")
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["--data", "digits", "--limit", 100, "--epochs", 1, "--model", "own_network:make"]
    output = train(*arguments, "--seed", 5, "--out", tmp_path / "run")
    assert "--model own_network:make" in output and "Sequential, 650 parameters" in output
    assert weights(tmp_path / "run")["1.weight"].shape == (10, 64)
    message = train(*arguments, "--network", "lenet", "--out", tmp_path / "other", code=1)
    assert message.startswith("--model: expected no --network or --batch-norm with it")


@pytest.mark.parametrize("change, message", [
    (["--data", "mnist5"], "mnist5"),
    (["--objective", "mda"], "--kernel"),
    (["--objective", "mrt", "--kernel", "brightnes"], "--kernel: expected one of"),
    (["--optimizer", "lion"], "--optimizer: expected one of adadelta, adam, sgd, got 'lion'"),
    (["--lr", "1=0.1"], "--lr: expected epochs from 0 on"),
    (["--lr", "-1"], "--lr: expected a finite number above 0"),
    (["--clip", "0"], "--clip: expected a finite number above 0"),
    (["--mixed-precision", "fp8"], "--mixed-precision: expected one of no, bf16, fp16"),
    (["--validation", "1.5"], "--validation: expected a number in (0, 1)"),
    (["--batch-size", "500"], "--data: expected at least one batch of 500 samples"),
    (["--domain", "brightness:250-"], "--domain: expected images of digits"),
    (["--domain", "warmth:low"], "--domain: expected one of brightness, contrast"),
])  # fmt: skip
def test_wrong_arguments(tmp_path, change, message):
    assert message in train(*DIGITS, "--out", tmp_path / "run", *change, code=1)
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


ROWS = [
    {"epoch": n, "loss": 2 / n, "accuracy": 0.1 * n, "validation_loss": 3 / n, "validation_accuracy": 0.2 * n}
    for n in (1, 2, 3)
]


def test_curves(tmp_path):
    before = copy.deepcopy(ROWS)
    figure = plot.training_curves(ROWS, tmp_path / "curves.svg", best=2, title="a run")
    loss, accuracy = figure.axes
    for axes, what in ((loss, "loss"), (accuracy, "accuracy")):
        drawn = [line.get_xydata().tolist() for line in axes.lines[:2]]
        assert drawn == [[[row["epoch"], row[column]] for row in ROWS] for column in (what, f"validation_{what}")]
        assert axes.lines[2].get_xdata() == [2, 2]
    assert ROWS == before and (tmp_path / "curves.svg").read_text().startswith("<?xml")


def test_curves_without_a_validation_set():
    figure = plot.training_curves([{"epoch": 1, "loss": 2.0, "accuracy": math.nan}])
    assert [len(axes.lines) for axes in figure.axes] == [1, 1]
    with pytest.raises(ValueError, match="epochs: expected at least one"):
        plot.training_curves([])
