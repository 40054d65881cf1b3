"""Accuracies against a plain loop over the samples."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from robustperf.data import Dataset
from robustperf.training import evaluate


class Table(nn.Module):
    """Returns the first column of the images as logits."""

    def forward(self, x):
        return x[:, 0, :, 0]


def data(seed=0, samples=50, classes=7):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 5, (samples, 1, classes, 1), generator=generator) / 5  # with many ties
    return Dataset("table", x, torch.randint(classes, (samples,), generator=generator), classes)


def before(logits, label):
    """The position of this label in a stable sort by logit."""
    return sorted(range(len(logits)), key=lambda other: (-logits[other], other)).index(label)


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_against_a_plain_loop(batch_size):
    dataset = data()
    found = evaluate(Table(), dataset, batch_size=batch_size)
    logits = dataset.x[:, 0, :, 0].double()
    ranks = [before(row.tolist(), label) for row, label in zip(logits, dataset.y.tolist(), strict=True)]
    assert found.rank.tolist() == ranks
    losses = logits.logsumexp(1) - logits[torch.arange(50), dataset.y]
    torch.testing.assert_close(found.loss, losses, rtol=1e-6, atol=1e-6)
    assert found.label.equal(dataset.y)
    for k in (1, 2, 5, 7):
        assert found.top(k) == sum(rank < k for rank in ranks) / 50
    assert found.top(1) == (logits.argmax(1) == dataset.y).double().mean()


def test_a_torch_data_set_and_the_modes_of_the_modules():
    dataset, model = data(), nn.Sequential(nn.Dropout(0.5), Table())
    model[1].eval()
    found = evaluate(model, TensorDataset(dataset.x, dataset.y), workers=1)
    assert found.rank.equal(evaluate(model, dataset).rank)
    assert model.training and not model[1].training


def test_no_samples():
    empty = data().limit(0)
    found = evaluate(Table(), empty)
    assert found.rank.shape == found.loss.shape == (0,) and found.top(1) != found.top(1)


@pytest.mark.parametrize("change, message", [
    (lambda d: Dataset("nan", d.x, d.y, 7), "NaN logits for 1 of 50 points, the first at \\[3\\]"),
    (lambda d: Dataset("labels", d.x, d.y.clamp(min=6) + 1, 8), "y: expected"),
])  # fmt: skip
def test_bad_input(change, message):
    class Nan(Table):
        def forward(self, x):
            logits = super().forward(x).clone()
            logits[3, 2] = float("nan")
            return logits

    dataset = change(data())
    with pytest.raises(ValueError, match=message):
        evaluate(Nan() if dataset.name == "nan" else Table(), dataset)
    with pytest.raises(ValueError, match="batch_size"):
        evaluate(Table(), dataset, batch_size=0)
    for workers in (-1, 1.5, None, True):
        with pytest.raises(ValueError, match="workers: expected an integer >= 0, got"):
            evaluate(Table(), dataset, workers=workers)
