"""Checkpoints that were damaged or changed, and a folder given with ~."""

import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import robustperf as rp
from robustperf.training import ERM, fit


def train(out, **kwargs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    fit(
        model,
        ERM(),
        rp.data.load("digits", "train").limit(60),
        validation=None,
        batch_size=20,
        epochs=1,
        progress=False,
        optimizer="adam",
        out=out,
        **kwargs,
    )
    return model


@pytest.fixture
def checkpoint(tmp_path):
    """(path, tensors, header) of a run's checkpoint."""
    train(tmp_path / "run")
    path = tmp_path / "run/checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        return path, load_file(path), file.metadata()


def refused(checkpoint, tensors=None, header=None):
    path, before, metadata = checkpoint
    save_file(before | (tensors or {}), path, metadata=metadata | (header or {}))
    with pytest.raises(ValueError, match="checkpoint: .*checkpoint.safetensors cannot be resumed from: ") as caught:
        train(path.parent, resume=True)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    return str(caught.value)


def test_integers_in_place_of_weights(checkpoint):
    name = "model.1.weight"
    assert "1.weight: expected torch.float32, found torch.int32" in refused(
        checkpoint, {name: checkpoint[1][name].int()}
    )


@pytest.mark.parametrize(
    "facts",
    [
        "[" * 100_000,
        "",
        "[]",
        "3",
        "{}",
        '{"epochs": 3, "best": 1, "scaler": null}',
        '{"epochs": [{}], "best": 1, "scaler": null}',
    ],
)
def test_facts_of_another_form(checkpoint, facts):
    refused(checkpoint, header={"facts": facts})


@pytest.mark.parametrize("scalars", ["[" * 100_000, "[]", '{"a.b": 1}'])
def test_optimizer_scalars_of_another_form(checkpoint, scalars):
    refused(checkpoint, header={"optimizer": scalars})


def test_tensors_of_an_unknown_group(checkpoint):
    assert "else" in refused(checkpoint, {"else.weight": torch.ones(1)})


def test_a_fifo_in_place_of_the_checkpoint(checkpoint):
    checkpoint[0].unlink()
    os.mkfifo(checkpoint[0])
    with pytest.raises(ValueError, match="cannot be resumed from: .* expected a file, found a FIFO"):
        train(checkpoint[0].parent, resume=True)


def test_truncated_settings(checkpoint):
    settings = checkpoint[0].parent / "settings.json"
    settings.write_text(settings.read_text()[:40])
    with pytest.raises(ValueError, match=f"out: {settings} is damaged"):
        train(checkpoint[0].parent, resume=True)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    first = train("~/run", log_with="tensorboard")
    again = train("~/run", log_with="tensorboard", resume=True)
    assert all(torch.equal(first.state_dict()[name], value) for name, value in again.state_dict().items())
    assert os.listdir() == ["run"] and json.loads((tmp_path / "run/settings.json").read_text())["seed"] == 0
