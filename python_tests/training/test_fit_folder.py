"""The folder of a run: its files, runs that are resumed to the same bits, and runs that fail or are refused."""

import csv
import json
import math
import random
import resource

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from python_tests.support import processes
from python_tests.support.training import KERNEL, Net, assert_same, fails_at, net, train, weights_of
from robustperf.training import ERM, MRT


def test_the_folder(digits, tmp_path):
    model = net()
    model.architecture = ("custom", {})
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


def test_after_step_is_called_with_the_weights_of_each_step_before_its_checkpoint(digits, tmp_path):
    model, seen, checkpoint = net(), [], tmp_path / "checkpoint.safetensors"

    def record(step):
        seen.append((step, weights_of(model), checkpoint.exists() and len(load_file(checkpoint)["further.steps"])))

    fitted = train(model, digits, ERM(), out=tmp_path, validation=None, checkpoint_steps=3, after_step=record)
    assert [step for step, _, _ in seen] == list(range(1, len(fitted.steps) + 1))
    assert [saved for _, _, saved in seen[:5]] == [False, False, False, 3, 3]
    assert_same(seen[-1][1], weights_of(model))
    again, stopped = net(), ValueError("enough")

    def stop(step):
        if step == 4:
            raise stopped

    with pytest.raises(ValueError, match="enough"):
        train(again, digits, ERM(), validation=None, after_step=stop)
    assert_same(weights_of(again), seen[3][1])
    with pytest.raises(TypeError, match="after_step: expected a function of the number of steps, got int"):
        train(net(), digits, after_step=3)


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


def test_a_finished_run_is_read_and_can_be_extended(digits, tmp_path):
    model, again, longer, at_once = (net() for _ in range(4))
    fitted = train(model, digits, out=tmp_path)
    same = train(again, digits, out=tmp_path, resume=True)
    assert_same(weights_of(model), weights_of(again))
    assert same.epochs == fitted.epochs and torch.equal(same.steps, fitted.steps)
    train(longer, digits, out=tmp_path, resume=True, epochs=4, optimizer="adadelta")
    train(at_once, digits, epochs=4)
    assert_same(weights_of(longer), weights_of(at_once))


KILLED = """
import os, signal, sys
import torch
import robustperf as rp
from python_tests.support import processes
from python_tests.support.training import KERNEL, net, train
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
    """The same objective, of the same name, as in the process that is killed."""
    return MRT(KERNEL, k=3)(model, x, y, key=key, index=index)


def test_killed_runs_are_resumed_to_the_same_bits(digits, tmp_path):
    straight, resumed = net(), net()
    fitted = train(straight, digits, killed, optimizer="adam", epochs=3)
    for steps in random.Random(2021).sample(range(1, 9), 2):  # the steps before the process is killed
        processes.killed(KILLED, str(steps), str(tmp_path), log=tmp_path.with_suffix(".log"))
    again = train(resumed, digits, killed, out=tmp_path, resume=True, checkpoint_steps=2, optimizer="adam", epochs=3)
    assert_same(weights_of(straight), weights_of(resumed))
    assert torch.equal(again.steps, fitted.steps) and again.best == fitted.best
    timing = ("images_per_second", "seconds")  # of the last process only
    assert [{k: v for k, v in row.items() if k not in timing} for row in again.epochs] == [
        {k: v for k, v in row.items() if k not in timing} for row in fitted.epochs
    ]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(digits, tmp_path, loss):
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
    with pytest.raises(ValueError, match="checkpoint.safetensors cannot be resumed from"):
        train(net(), digits, out=tmp_path, resume=True)
