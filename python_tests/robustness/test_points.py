"""Margins of arrays, data sets and DataLoaders: those of the same points as one tensor."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset

import robustperf as rp


@pytest.fixture
def x():
    return torch.rand(11, 2, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def y():
    return torch.arange(11) % 3


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 3))


def same(found, expected):
    torch.testing.assert_close(found.distance, expected.distance, rtol=1e-4, atol=1e-6)
    assert torch.equal(found.found, expected.found)


def test_array(model, x):
    expected = rp.margins(model, x)
    same(rp.margins(model, x.numpy()), expected)
    same(rp.margins(model, np.asfortranarray(x.numpy())), expected)
    read_only = x.numpy().copy()
    read_only.flags.writeable = False
    same(rp.margins(model, read_only), expected)
    same(rp.margins(model.double(), x.double().numpy()), rp.margins(model, x.double()))


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda v: np.array(v, np.int32)])
def test_labels_of_any_kind(model, x, y, kind):
    same(rp.margins(model, x, labels=kind(y.tolist())), rp.margins(model, x, labels=y))


class Counted(TorchDataset):
    """Samples that are counted as they are read; without labels if `y` is None."""

    def __init__(self, x, y=None):
        self.x, self.y, self.read = x, y, 0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, place):
        self.read += 1
        return self.x[place] if self.y is None else (self.x[place], int(self.y[place]))


def data_of(kind, x, y):
    return {
        "pair": lambda: (x, y),
        "arrays": lambda: (x.numpy(), y.numpy()),
        "data set": lambda: TensorDataset(x, y),
        "loader": lambda: DataLoader(TensorDataset(x, y), batch_size=4),
        "shuffled": lambda: DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True),
        "Dataset": lambda: rp.data.Dataset("toy", x[:, None], y, 3),
    }[kind]()


@pytest.mark.parametrize("kind", ["pair", "arrays", "data set", "loader", "shuffled", "Dataset"])
def test_data_in_its_own_order(model, x, y, kind):
    data = data_of(kind, x, y)
    same(rp.margins(model, data, attacks="pgd", keep_points=True), rp.margins(model, x, attacks="pgd"))
    same(rp.margins(model, data, labels="true"), rp.margins(model, x, labels=y))
    same(rp.margins(model, data, labels=y.flip(0)), rp.margins(model, x, labels=y.flip(0)))


def test_sample_ids_are_positions(model, x, y):
    """PGD's random start depends on the id: a batch that began at 0 again would find other points."""
    loader = DataLoader(TensorDataset(x, y), batch_size=4)
    attack = rp.attacks.PGD(norm=2, steps=1)
    expected = rp.margins(model, x, attacks=[attack], keep_points=True).point
    torch.testing.assert_close(rp.margins(model, loader, attacks=[attack], keep_points=True).point, expected)
    ids = torch.arange(11).flip(0)
    other = rp.margins(model, loader, attacks=[attack], keep_points=True, index=ids).point
    torch.testing.assert_close(other, rp.margins(model, x, attacks=[attack], keep_points=True, index=ids).point)
    assert not torch.allclose(other, expected)


@pytest.mark.parametrize(
    "samples", [lambda x: Counted(x), lambda x: TensorDataset(x), lambda x: TensorDataset(x, x, x)]
)
def test_labels_are_not_needed_unless_asked_for(model, x, samples):
    loader = DataLoader(samples(x), batch_size=4)
    same(rp.margins(model, loader), rp.margins(model, x))
    with pytest.raises(TypeError, match=r"expected pairs \(image, label\)"):
        rp.margins(model, loader, labels="true")


def test_samples_are_read_a_batch_at_a_time(model, x, y):
    samples = Counted(x, y)
    reads = []

    def watched(images):
        reads.append(samples.read)
        return model(images)

    rp.margins(watched, DataLoader(samples, batch_size=4), attacks="fgsm")
    assert min(reads) == 4 and max(reads) == 11 == samples.read


@pytest.mark.parametrize(
    "images", [np.zeros((2, 6), np.uint8), torch.zeros(2, 6, dtype=torch.uint8), np.zeros((2, 6), np.int64)]
)
def test_integer_images_are_an_error_that_says_what_to_do(model, images):
    message = r"x: expected float32 or float64 images in \[0, 1\], got (torch.)?u?int\d+; .* / 255"
    with pytest.raises(TypeError, match=message):
        rp.margins(model, images)
    if isinstance(images, torch.Tensor):
        with pytest.raises(TypeError, match=message):
            rp.margins(model, DataLoader(TensorDataset(images, torch.zeros(2)), batch_size=2))


def test_images_of_0_to_255_are_an_error(model, x):
    with pytest.raises(ValueError, match=r"expected pixels within \[0, 1\]"):
        rp.margins(model, (255 * x).numpy())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labels": "true"}, ValueError, "labels: expected a data set with labels for 'true', got images only"),
        ({"labels": "model"}, ValueError, r"labels: expected \[N\] integers, 'true' or None, got 'model'"),
        ({"labels": [0, 1]}, ValueError, r"labels: expected shape \[11\], got \[2\]"),
        ({"labels": [0.5] * 11}, ValueError, "labels: expected whole numbers"),
        ({"x": "digits"}, TypeError, "x: expected a tensor, an array.*got str"),
        ({"x": object()}, TypeError, "x: expected a Dataset.*got object"),
        ({"x": []}, TypeError, "x: expected a tensor, an array.*got list"),
        ({"x": TensorDataset(torch.zeros(0, 6))}, ValueError, "x: expected at least one sample"),
        ({"x": np.zeros((2, 6), np.float16)}, TypeError, "x: expected .*got torch.float16"),
        ({"x": np.array(["a", "b"])}, TypeError, "x: expected .*got <U1"),
    ],
)
def test_wrong_arguments(model, x, arguments, error, message):
    with pytest.raises(error, match=message):
        rp.margins(model, **{"x": x, **arguments})
