"""The benchmarks on T section 3: the folders of runs, the images of Figure 7, the percentage of fooled images."""

import types

import pytest
import torch

from benchmarks.paper.tibo import Generator
from benchmarks.paper.tibo_cotraining import fooled, generator
from benchmarks.paper.tibo_figure7 import one_of_each
from robustperf.data import Dataset


def test_runs_of_different_generators_have_different_folders():
    assert Generator().suffix == ""
    assert Generator(width=128, steps=5).suffix == "-width-128-steps-5"
    assert generator("5 steps, mean distance", 64).suffix == "-steps-5-distance_weight-0.015625"
    assert generator("paper", 64) == Generator() and generator("128 channels", 64) == Generator(width=128)


def test_the_images_of_the_figure_are_the_first_of_each_label_in_turn():
    y = torch.tensor([2, 2, 0, 1, 2, 0, 0])
    rows = one_of_each(Dataset("small", torch.zeros(7, 1, 2, 2), y, 3), 5)
    assert rows.tolist() == [2, 3, 0, 5, 1]


def test_the_fooled_images_are_those_whose_label_changes():
    def model(x):
        return torch.stack([torch.full((len(x),), 0.5), x[:, 0, 0, 0]], 1)

    x = torch.tensor([0.1, 0.3, 0.6, 0.9]).view(4, 1, 1, 1)
    found = types.SimpleNamespace(model=model, generator=lambda x: x + 0.25)
    change, distance = fooled(found, types.SimpleNamespace(x=x))
    assert change == 25.0 and distance == pytest.approx(0.25)  # 0.3 crosses 0.5
