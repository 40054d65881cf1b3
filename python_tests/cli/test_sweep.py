"""`robustperf sweep`: its table, its choice, resuming, and bad input."""

import csv

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import robustperf as rp
from robustperf import cli, nets, training
from robustperf.cli.sweep import choose, parse_weights
from robustperf.nets import weights_file

DIGITS = [
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
    "--lr",
    "5e-3",
]
HEIN = ["--objective", "hein", "--weights", "1000,0.001"]


def sweep(*arguments, code=0):
    """Output or error of `robustperf sweep ARGUMENTS`."""
    result = CliRunner().invoke(cli.app, ["sweep", *map(str, arguments)], env={"COLUMNS": "200"})
    if isinstance(result.exception, Exception) and code == 1:  # main() makes a line of it
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


def table(folder):
    with open(folder / "sweep.csv") as file:
        return list(csv.DictReader(file))


def test_the_runs_equal_those_of_python_and_the_largest_weight_within_is_chosen(tmp_path):
    output = sweep(*DIGITS, *HEIN, "--epochs", 8, "--within", 0.2, "--validation", 0.2, "--out", tmp_path)
    data, test = (rp.data.load("digits", split).limit(200) for split in ("train", "test"))
    expected = []
    for objective in (training.ERM(), training.CrossLipschitz(0.001), training.CrossLipschitz(1000.0)):
        torch.manual_seed(0)
        model = nets.build("small-cnn", in_channels=1, size=8, classes=10)
        fitted = training.fit(
            model, objective, data, validation=0.2, epochs=8, batch_size=20, optimizer="adam", lr=5e-3, progress=False
        )
        accuracy = fitted.epochs[fitted.best - 1]["validation_accuracy"]
        expected.append((fitted.best, accuracy, training.evaluate(model, test).top(1)))
    assert expected[0][1] > 0.5 > expected[2][1] + 0.2  # else there is nothing to choose
    rows = table(tmp_path)
    found = [(int(row["best_epoch"]), float(row["validation_accuracy"]), float(row["test_accuracy"])) for row in rows]
    assert found == expected
    assert [row["weight"] for row in rows] == ["", "0.001", "1000.0"]
    assert [row["chosen"] for row in rows] == ["False", "True", "False"]
    weights = tmp_path / "weight-0.001" / "model.safetensors"
    assert f"within 20.00%: 0.001, {weights}" in output and "largest weight tried" not in output
    assert training.evaluate(weights_file.load(weights), test).top(1) == found[1][2]
    for _, accuracy, on_test in found:
        assert f"{accuracy:.2%}" in output and f"{on_test:.2%}" in output


@pytest.mark.parametrize("accuracies, within, expected", [
    ([0.9, 0.95, 0.89, 0.5], 0.01, 2), ([0.96, 0.96, 0.95, 0.94], 0.01, 2), ([0.9, 0.91, 0.92, 0.93], 0, 3),
    ([0.9, 0.8, 0.9, 0.8], 0.05, 2), ([0.9, 0.5, 0.4, 0.3], 0.01, None), ([0.9, 0.9, 0.9, 0.8], 0, 2),
])  # fmt: skip
def test_the_choice(accuracies, within, expected):
    rows = [{"weight": n or None, "validation_accuracy": accuracy} for n, accuracy in enumerate(accuracies)]
    assert choose(rows, within) is (None if expected is None else rows[expected])


def test_an_interrupted_sweep_is_resumed(tmp_path, monkeypatch):
    arguments = [*DIGITS, "--objective", "cotrain(width=4, layers=1)", "--weights", "0.1,1"]
    sweep(*arguments, "--out", tmp_path / "at_once")
    calls, inner = [], training.CoTrain._generator_step

    def interrupted(*arguments, **named):
        calls.append(1)
        if len(calls) == 6:  # in the first weight's first epoch
            raise KeyboardInterrupt
        return inner(*arguments, **named)

    monkeypatch.setattr(training.CoTrain, "_generator_step", interrupted)
    output = sweep(*arguments, "--checkpoint-steps", 2, "--out", tmp_path / "parts", code=130)
    assert f"Interrupted in {tmp_path / 'parts' / 'weight-0.1'}" in output
    assert not (tmp_path / "parts" / "sweep.csv").exists()
    assert "holds an earlier run" in sweep(*arguments, "--out", tmp_path / "parts", code=1)
    monkeypatch.undo()
    steps = []
    monkeypatch.setattr(training.ERM, "loss", lambda *arguments, **named: steps.append(1))
    sweep(*arguments, "--out", tmp_path / "parts", "--resume")
    assert not steps  # what is done is not done again
    assert (tmp_path / "parts" / "sweep.csv").read_bytes() == (tmp_path / "at_once" / "sweep.csv").read_bytes()
    for name in ("model", "generator"):
        parts, whole = (
            weights_file.read(tmp_path / run / "weight-0.1" / f"{name}.safetensors")[0] for run in ("parts", "at_once")
        )
        assert all(torch.equal(value, whole[key]) for key, value in parts.items())
    # one more weight
    output = sweep(*arguments[:-1], "0.1,1,2", "--within", 1, "--out", tmp_path / "parts", "--resume")
    assert "It is the largest weight tried: larger ones may keep the accuracy too." in output
    assert len(table(tmp_path / "parts")) == 4 and not steps


def test_data_of_one_split_and_no_weight_near(tmp_path):
    generator = np.random.default_rng(0)
    labels = np.arange(80) % 2
    images = (generator.random((80, 6, 6)) * 100 + 100 * labels[:, None, None]).astype(np.uint8)
    np.savez(tmp_path / "two.npz", images=images, labels=labels)
    output = sweep(
        "--data",
        tmp_path / "two.npz",
        "--network",
        "small-cnn",
        "--batch-size",
        20,
        "--epochs",
        3,
        "--objective",
        "hein",
        "--weights",
        "1e9",
        "--optimizer",
        "adam",
        "--validation",
        0.4,
        "--out",
        tmp_path / "run",
    )
    rows = table(tmp_path / "run")
    assert [row["test_accuracy"] for row in rows] == ["", ""] and [row["chosen"] for row in rows] == ["False"] * 2
    assert "No weight keeps the accuracy within 1.00%" in output


@pytest.mark.parametrize("change, message", [
    (["--weights", "0.1,x"], "weights: expected different finite numbers above 0"),
    (["--objective", "erm"], "weight: expected none for the objective erm"),
    (["--objective", "hein(0.1)"], "multiple values for argument 'weight'"),
    (["--objective", "gaussian(weight=0.5)"], "objective: expected one without a weight"),
    (["--objective", "mrt"], "such as --kernel"),
    (["--validation", "0"], "validation: expected a number in (0, 1)"),
    (["--data", "mnist5"], "mnist5"),
    (["--lr", "fast"], "lr: expected a rate"),
])  # fmt: skip
def test_wrong_arguments(tmp_path, change, message):
    assert message in sweep(*DIGITS, *HEIN, *change, "--out", tmp_path / "run", code=1)
    assert not (tmp_path / "run").exists()


def test_weights():
    assert parse_weights("1,1e-2,0.5") == [0.01, 0.5, 1.0]
    for wrong in ("", ",", "0", "-1", "nan", "inf", "1,1.0", "0.1;1"):
        with pytest.raises(ValueError, match="weights: expected different finite numbers"):
            parse_weights(wrong)
