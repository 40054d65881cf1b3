"""The loop: what it makes, what it leaves on disk, and how it stops and goes on."""

import csv
import itertools
import json
import math
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import TensorDataset

import robustperf as rp
from robustperf import nets, training
from robustperf.data import Dataset
from robustperf.nuisance import Brightness, Compose, Rotation
from robustperf.training import ERM, MRT, batches, fit
from robustperf.training.batches import held_out

KERNEL = Compose([Rotation(20), Brightness(0.3)])


class Net(nn.Module):
    """Everything that could keep a run from being repeated: both dropouts and batch normalisation."""

    def __init__(self, classes=10):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nets.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(144, 16),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(16, classes),
        )

    def forward(self, x):
        return self.layers(x)


def net(seed=0, kind=Net, **kwargs):
    torch.manual_seed(seed)
    return kind(**kwargs)


@pytest.fixture(scope="module")
def digits():
    return rp.data.load("digits", "train").limit(200)


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=0, msg=name)


def train(model, data, objective=None, **kwargs):
    objective = objective or MRT(KERNEL, k=3)
    return fit(model, objective, data, **{"epochs": 2, "batch_size": 32, "progress": False, "seed": 5, **kwargs})


@pytest.mark.parametrize(
    "objective",
    [ERM(), MRT(KERNEL, k=3), training.MAT(KERNEL, k=2), training.MDA(KERNEL, k=2), training.AugMix()],
    ids=lambda objective: type(objective).__name__,
)
def test_a_loop_of_ones_own_finds_the_same_weights(digits, objective):
    model, own = (net(kind=nets.SmallCNN, size=8, width=4) for _ in range(2))
    fitted = train(model, digits, objective, validation=None)
    key, optimizer, losses = rp.random.key(5), torch.optim.Adadelta(own.parameters(), lr=1.0), []
    steps = itertools.chain.from_iterable(batches(len(digits), 32, key=key, epoch=epoch) for epoch in range(2))
    for step, rows in enumerate(steps):
        loss = objective(own, digits.x[rows], digits.y[rows], key=rp.random.fold_in(key, step), index=rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert_same(weights_of(model), weights_of(own))
    assert fitted.steps[:, 0].tolist() == losses and len(losses) == 2 * (200 // 32)


def test_it_learns_and_keeps_the_best_epoch(digits):
    model = net(kind=nets.SmallCNN, size=8)
    fitted = train(model, digits, ERM(), epochs=8, validation=0.2, optimizer="adam", lr=5e-3)
    accuracies = [row["validation_accuracy"] for row in fitted.epochs]
    assert fitted.best == 1 + accuracies.index(max(accuracies)) and max(accuracies) > 0.5
    numbers, held = held_out(200, 0.2, key=rp.random.key(5))
    assert training.evaluate(model, digits.rows(held)).top(1) == max(accuracies)
    assert sorted([*numbers.tolist(), *held.tolist()]) == list(range(200)) and len(held) == 40


def test_a_validation_set_of_its_own(digits):
    test, model = rp.data.load("digits", "test").limit(64), net()
    fitted = train(model, digits, validation=test)
    assert len(fitted.steps) == 2 * (200 // 32)  # nothing is held out
    accuracies = [row["validation_accuracy"] for row in fitted.epochs]
    assert training.evaluate(model, test).top(1) == max(accuracies) == accuracies[fitted.best - 1]


def test_without_validation_it_keeps_the_last_epoch(digits):
    fitted = train(net(), digits, validation=None, epochs=3)
    assert fitted.best == 3 and all("validation_accuracy" not in row for row in fitted.epochs)


def test_it_leaves_the_model_and_the_random_state_as_they_were(digits):
    model = net()
    before, attributes = torch.get_rng_state(), set(vars(model))
    train(model, digits, epochs=1, mixed_precision="bf16")
    torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)
    assert not model._forward_hooks and set(vars(model)) == attributes
    assert model(digits.x[:2]).dtype == torch.float32
    train(model, digits, epochs=1)  # another precision in the same process


def test_mixed_precision_trains_in_bfloat16(digits):
    seen = []

    class Looks(Net):
        def forward(self, x):
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    model = net(kind=Looks)
    train(model, digits, ERM(), epochs=1, mixed_precision="bf16", validation=None)
    assert seen[0] == torch.float32  # a check, before accelerate has the model
    assert len(seen) >= 7 and set(seen[1:]) == {torch.bfloat16}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_gradients_are_clipped(digits):
    norms = []

    class Looks(torch.optim.SGD):
        def step(self, *arguments):
            gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
            norms.append(torch.cat(gradients).norm().item())
            return super().step(*arguments)

    train(net(), digits, ERM(), epochs=1, optimizer=lambda parameters: Looks(parameters, lr=0.1))
    most = 0.5 * min(norms)
    norms.clear()
    train(net(), digits, ERM(), epochs=1, optimizer=lambda parameters: Looks(parameters, lr=0.1), clip=most)
    assert norms == pytest.approx([most] * len(norms), rel=1e-4)


@pytest.mark.parametrize("lr, expected", [
    (None, [0.05] * 12), (0.5, [0.5] * 12), ((0.5, 0.06), [0.5 - 0.04 * step for step in range(12)]),
    ({0: 0.5, 1: 0.1}, [0.5] * 6 + [0.1] * 6),
])  # fmt: skip
def test_learning_rates(digits, lr, expected):
    rates = []

    class Looks(torch.optim.SGD):
        def step(self, *arguments):
            rates.append(self.param_groups[0]["lr"])
            return super().step(*arguments)

    model = net()
    train(model, digits, ERM(), optimizer=Looks(model.parameters(), lr=0.05), lr=lr, validation=None)
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    "name, kind, rate",
    [("adadelta", torch.optim.Adadelta, 1.0), ("adam", torch.optim.Adam, 1e-3), ("sgd", torch.optim.SGD, 0.05)],
)
def test_optimizers_by_name(digits, name, kind, rate):
    by_name, given = net(), net()
    train(by_name, digits, ERM(), optimizer=name, epochs=1)
    train(given, digits, ERM(), optimizer=kind(given.parameters(), lr=rate), epochs=1)
    assert_same(weights_of(by_name), weights_of(given))


def test_a_torch_data_set_and_workers(digits):
    left, right = net(), net()
    train(left, digits, validation=0.1)
    train(right, TensorDataset(digits.x, digits.y), validation=0.1, workers=2)
    assert_same(weights_of(left), weights_of(right))


def test_the_folder(digits, tmp_path):
    model = net()
    model.architecture = ("a net of ours", {})
    fitted = train(model, digits, out=tmp_path, epochs=3)
    assert {path.name for path in tmp_path.iterdir()} == {
        ".lock",
        "checkpoint.safetensors",
        "model.safetensors",
        "metrics.csv",
        "steps.csv",
        "settings.json",
    }
    assert_same(load_file(tmp_path / "model.safetensors"), weights_of(model))
    with open(tmp_path / "metrics.csv") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == fitted.epochs
    with open(tmp_path / "steps.csv") as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == fitted.steps[:, 0].tolist()
    assert "MRT(" in json.loads((tmp_path / "settings.json").read_text())["objective"]


def test_tensorboard(digits, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fitted = train(net(), digits, out=tmp_path, log_with="tensorboard")
    (file,) = tmp_path.rglob("events.out.tfevents*")
    events = EventAccumulator(str(file))
    events.Reload()
    losses = [event.value for event in events.Scalars("loss")]
    assert losses == pytest.approx(fitted.steps[:, 0].tolist())
    assert [event.step for event in events.Scalars("epoch/validation_accuracy")] == [5, 10]


def test_a_tracker_that_is_not_installed_is_no_silence(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(ImportError, match=r"log_with: tensorboard is not installed: pip install 'robustperf\[tensorb"):
        train(net(), digits, out=tmp_path, log_with="tensorboard")


def test_a_run_that_is_done_is_read_and_can_be_prolonged(digits, tmp_path):
    model, again, longer, at_once = (net() for _ in range(4))
    fitted = train(model, digits, out=tmp_path)
    same = train(again, digits, out=tmp_path, resume=True)
    assert_same(weights_of(model), weights_of(again))
    assert same.epochs == fitted.epochs and torch.equal(same.steps, fitted.steps)
    train(longer, digits, out=tmp_path, resume=True, epochs=4, optimizer="adadelta")
    train(at_once, digits, epochs=4)
    assert_same(weights_of(longer), weights_of(at_once))


KILLED = """
import sys
sys.path.insert(0, {folder!r})
import os, signal
import torch
import robustperf as rp
from python_tests.training.test_fit import KERNEL, net, train
from robustperf.training import MRT

torch.set_num_threads(1)
left = int(sys.argv[1])

def killed(model, x, y, *, key, index):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return MRT(KERNEL, k=3)(model, x, y, key=key, index=index)

train(net(), rp.data.load("digits", "train").limit(200), killed, out=sys.argv[2], resume=True, checkpoint_steps=2,
      optimizer="adam", epochs=3)
"""


def killed(model, x, y, *, key, index):
    """The same objective, and the same name, as that of the process that is killed."""
    return MRT(KERNEL, k=3)(model, x, y, key=key, index=index)


def test_killed_runs_go_on_to_the_same_bits(digits, tmp_path):
    straight, resumed = net(), net()
    fitted = train(straight, digits, killed, optimizer="adam", epochs=3)
    script = KILLED.format(folder=str(Path(__file__).parents[2]))
    for steps in random.Random(2021).sample(range(1, 9), 2):  # so many, and the process is gone
        command = [sys.executable, "-c", script, str(steps), str(tmp_path)]
        process = subprocess.run(command, capture_output=True, text=True)
        assert process.returncode == -signal.SIGKILL, process.stderr
    again = train(resumed, digits, killed, out=tmp_path, resume=True, checkpoint_steps=2, optimizer="adam", epochs=3)
    assert_same(weights_of(straight), weights_of(resumed))
    assert torch.equal(again.steps, fitted.steps) and again.best == fitted.best
    told = ("images_per_second", "seconds")  # of the last part only
    assert [{k: v for k, v in row.items() if k not in told} for row in again.epochs] == [
        {k: v for k, v in row.items() if k not in told} for row in fitted.epochs
    ]


def fails_at(step, loss=None, error=None):
    """ERM that is `loss`, or raises, at that step."""
    calls = itertools.count()

    def objective(model, x, y, *, key, index):
        found = ERM()(model, x, y, key=key, index=index)
        if next(calls) == step:
            if error is not None:
                raise error
            return found * loss
        return found

    return objective


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_it_and_keeps_the_checkpoint(digits, tmp_path, loss):
    good, model = net(), net()
    train(good, digits, fails_at(-1), out=tmp_path / "good", epochs=1)
    with pytest.raises(FloatingPointError, match=rf"got {loss} at step 8 \(epoch 2, batch 3, samples .*step 5"):
        train(model, digits, fails_at(7, loss), out=tmp_path / "bad")
    left, right = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("good", "bad"))
    assert_same(left, right)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    with pytest.raises(FloatingPointError, match=r"at step 1 .*; there is no checkpoint yet"):
        train(net(), digits, fails_at(0, loss), out=tmp_path / "first")


def test_an_interrupted_run_frees_its_folder(digits, tmp_path):
    model = net()
    with pytest.raises(KeyboardInterrupt):
        train(model, digits, fails_at(8, error=KeyboardInterrupt()), out=tmp_path)
    assert not model._forward_hooks
    train(net(), digits, fails_at(-1), out=tmp_path, resume=True)


def test_a_folder_in_use(digits, tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(ValueError, match=f"out: {tmp_path} is in use by another process"):
        train(net(), digits, out=tmp_path)
    assert not (tmp_path / "settings.json").exists()


def test_a_full_disk(digits, tmp_path):
    model, limits = net(), resource.getrlimit(resource.RLIMIT_FSIZE)
    objective = fails_at(-1)

    def fills(model, x, y, *, key, index):
        if (tmp_path / "metrics.csv").exists():  # the first epoch is done
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        return objective(model, x, y, key=key, index=index)

    try:
        with pytest.raises(OSError, match=r"out: .* could not be written .*checkpoint.safetensors is of step 5"):
            train(model, digits, fills, out=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    good = net()
    train(good, digits, objective, out=tmp_path / "good", epochs=1)
    assert_same(load_file(tmp_path / "checkpoint.safetensors"), load_file(tmp_path / "good" / "checkpoint.safetensors"))
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("changes, message", [
    ({"objective": ERM()}, r"objective was \"MRT\(.*\" and is 'ERM\(\)'"),
    ({"objective": MRT(KERNEL, k=4)}, "k=3.*k=4"),
    ({"model": Net(classes=11)}, "model was 'Net of .*parameters"),
    ({"batch_size": 16}, "batch_size was 32 and is 16"),
    ({"optimizer": "adam"}, "optimizer was 'Adadelta"),
    ({"seed": 6}, "seed was 5 and is 6"),
    ({"validation": None}, "validation was 0.1 and is None"),
    ({"lr": 0.5}, "lr was 'None' and is '0.5'"),
    ({"resume": False}, "holds an earlier run"),
])  # fmt: skip
def test_another_run_in_the_folder_is_refused(digits, tmp_path, changes, message):
    train(net(), digits, out=tmp_path, epochs=1)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    changes = {"model": net(), "out": tmp_path, "resume": True, **changes}
    with pytest.raises(ValueError, match=message):
        train(changes.pop("model"), digits, changes.pop("objective", None), **changes)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_a_damaged_checkpoint(digits, tmp_path):
    train(net(), digits, out=tmp_path, epochs=1)
    whole = (tmp_path / "checkpoint.safetensors").read_bytes()
    (tmp_path / "checkpoint.safetensors").write_bytes(whole[:-7])
    with pytest.raises(ValueError, match="checkpoint.safetensors cannot be gone on with"):
        train(net(), digits, out=tmp_path, resume=True)


X, Y = torch.rand(40, 1, 8, 8), torch.arange(40) % 10


@pytest.mark.parametrize("data, changes, error, message", [
    (Dataset("none", X[:0], Y[:0], 10), {}, ValueError, "train: expected"),
    (Dataset("none", X[:0], Y[:0], 10), {"validation": None}, ValueError, "train: expected at least one batch of 32"),
    (Dataset("few", X[:20], Y[:20], 10), {}, ValueError, "train: expected at least one batch of 32 samples, got 18"),
    (Dataset("more", X, Y + 1, 11), {}, ValueError, r"train: expected labels in 0\.\.9.*got 10"),
    (Dataset("all", X, Y, 10), {"validation": Dataset("more", X, Y + 3, 13)}, ValueError,
     "validation: expected labels"),
    (Dataset("all", X, Y, 10), {"validation": Dataset("none", X[:0], Y[:0], 10)}, ValueError,
     "validation: expected samples"),
    (Dataset("all", X, Y, 10), {"validation": 1.5}, ValueError, "validation: expected a share"),
    (Dataset("all", X, Y, 10), {"validation": 0}, ValueError, "validation: expected a share"),
    (Dataset("all", X, Y, 10), {"log_with": "tensorboard"}, ValueError, "out: expected a folder"),
    (Dataset("all", X, Y, 10), {"log_with": "abacus"}, ImportError, "log_with: abacus is not installed"),
    (Dataset("all", X, Y, 10), {"epochs": 0}, ValueError, "epochs: expected an integer above 0"),
    (Dataset("all", X, Y, 10), {"batch_size": 0}, ValueError, "batch_size"),
    (Dataset("all", X, Y, 10), {"clip": -1}, ValueError, "clip"),
    (Dataset("all", X, Y, 10), {"optimizer": "adagrad"}, ValueError, "optimizer: expected one of adadelta, adam, sgd"),
    (Dataset("all", X, Y, 10), {"optimizer": 3}, TypeError, "optimizer"),
    (Dataset("all", X, Y, 10), {"lr": (0.1, 0.2, 0.3)}, ValueError, "lr: expected"),
    (Dataset("all", X, Y, 10), {"lr": {1: 0.1}}, ValueError, "lr: expected epochs from 0 on"),
    (Dataset("all", X, Y, 10), {"lr": 0}, ValueError, "lr"),
    (Dataset("all", X, Y, 10), {"mixed_precision": "int8"}, ValueError, "mixed_precision: expected one of no, bf16"),
    (Dataset("all", X, Y, 10), {"resume": True}, ValueError, "out: expected a folder"),
    (Dataset("all", X, Y, 10), {"checkpoint_steps": 3}, ValueError, "out: expected a folder"),
    (Dataset("all", X, Y, 10), {"objective": "mrt"}, TypeError, "objective: expected"),
])  # fmt: skip
def test_bad_input(data, changes, error, message):
    model = net()
    before = weights_of(model)
    with pytest.raises(error, match=message):
        train(model, data, changes.pop("objective", ERM()), **changes)
    assert_same(weights_of(model), before)
