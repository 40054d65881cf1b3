"""The kinds of data that `fit` takes, and the random numbers of a torch data set."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, SequentialSampler, TensorDataset, WeightedRandomSampler

import robustperf as rp
from python_tests.support.training import assert_same, net, train, weights_of
from robustperf.data.batches import load_batches
from robustperf.training import ERM, evaluate, fit

X, Y = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 10


def trained(data, **settings):
    model = net()
    fitted = train(model, data, ERM(), epochs=1, **{"batch_size": 16, **settings})
    return weights_of(model), fitted


@pytest.mark.parametrize("pair", [
    (X, Y), (X.numpy(), Y.numpy()), (X.double().numpy(), Y.tolist()), (X, Y.to(torch.int16)), (X, Y.double()),
], ids=["tensors", "arrays", "float64 array and list", "int16", "whole floats"])  # fmt: skip
@pytest.mark.parametrize("validation", [None, 0.2])
def test_a_pair_is_taken_as_a_dataset_is(pair, validation):
    want, _ = trained(rp.data.Dataset("pair", X, Y, 10), validation=validation)
    got, fitted = trained(pair, validation=validation)
    assert_same(got, want)
    assert len(fitted.steps) == (40 if validation is None else 32) // 16


def test_a_pair_to_validate_and_to_evaluate_on():
    dataset = rp.data.Dataset("pair", X, Y, 10)
    _, fitted = trained((X, Y), validation=(X, Y))
    _, want = trained(dataset, validation=dataset)
    assert fitted.epochs[0]["validation_loss"] == want.epochs[0]["validation_loss"]
    model = net()
    assert torch.equal(evaluate(model, (X, Y)).loss, evaluate(model, dataset).loss)
    assert torch.equal(evaluate(model, DataLoader(TensorDataset(X, Y), 7)).loss, evaluate(model, dataset).loss)


@pytest.mark.parametrize("pair, error, message", [
    ((X, Y + 0.7), ValueError, "train: y: expected whole numbers, got 0.7"),
    ((X, Y * np.nan), ValueError, "train: y: expected whole numbers, got nan"),
    ((X, [str(label) for label in Y]), TypeError, "train: y: expected whole numbers, got list"),
    ((X, torch.eye(10)[Y]), ValueError, r"train: y: expected a label for each image.*\[40, 10\]"),
    ((X, Y[:-1]), ValueError, "train: expected an image for each label, got 40 images and 39 labels"),
    ((X, Y, Y), ValueError, r"train: expected a pair \(x, y\), got 3"),
    (((X * 255).byte(), Y), TypeError, "train: x: expected torch.float32 or torch.float64, got torch.uint8"),
    ((X * np.inf, Y), ValueError, "train: x: expected finite pixels"),
    ((X, Y + 1), ValueError, r"train: expected labels in 0\.\.9.*got 10"),
    ((X, Y - 1), ValueError, r"train: expected labels in 0\.\.9.*got -1"),
    (iter(X), TypeError, "train: expected a Dataset"),
])  # fmt: skip
def test_pairs_that_are_refused(pair, error, message):
    with pytest.raises(error, match=message):
        trained(pair, validation=None)


def test_labels_with_a_fraction_in_a_torch_data_set():
    with pytest.raises(ValueError, match="y: expected whole numbers, got"):
        trained(TensorDataset(X, Y + 0.5), validation=None)
    with pytest.raises(ValueError, match="y: expected whole numbers, got"):
        evaluate(net(), TensorDataset(X, Y + 0.5))


def halved(samples):
    x, y = torch.utils.data.default_collate(samples)
    return x / 2, y


@pytest.mark.parametrize("workers", [0, 1])
def test_the_data_set_and_the_settings_of_a_data_loader_are_used(workers):
    loader = DataLoader(TensorDataset(X, Y), 20, shuffle=True, num_workers=workers, collate_fn=halved)
    got, fitted = trained(loader, validation=0.2, batch_size=None)
    want, _ = trained((X / 2, Y), validation=0.2, batch_size=20)
    assert_same(got, want)
    assert len(fitted.steps) == 32 // 20
    with pytest.raises(ValueError, match="batch_size: expected 20, the DataLoader's, or None, got 16"):
        trained(loader, batch_size=16)


@pytest.mark.parametrize("settings, message", [
    ({}, "train: expected a DataLoader with shuffle=True.*SequentialSampler"),
    ({"sampler": WeightedRandomSampler([1.0] * 40, 40)}, "train: .*WeightedRandomSampler"),
    ({"batch_sampler": [[0, 1], [2, 3]]}, "train: expected a DataLoader with a batch_size, got one with batch_sampler"),
    ({"batch_size": None}, "train: expected a DataLoader with a batch_size"),
    ({"shuffle": True, "worker_init_fn": print}, "train: expected a DataLoader without a worker_init_fn"),
    ({"shuffle": True, "generator": torch.Generator()}, "train: expected a DataLoader without a generator"),
])  # fmt: skip
def test_settings_of_a_data_loader_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        trained(DataLoader(TensorDataset(X, Y), **settings), batch_size=None)
    assert isinstance(DataLoader(TensorDataset(X, Y)).sampler, SequentialSampler)


class Noisy(torch.utils.data.Dataset):
    """Draws from all the global generators."""

    def __len__(self):
        return len(X)

    def __getitem__(self, number):
        noise = torch.rand_like(X[number]) + np.random.rand() + random.random()
        return (X[number] + 0.2 * noise).clamp(0, 1), int(Y[number])


def seed_globally(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def state():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_random_numbers_of_a_sample_depend_on_its_key_and_id(workers):
    rows = torch.arange(40).split(16)

    def images(parts, keys, seed):
        seed_globally(seed)
        before = state()
        found = [x for x, _, _ in load_batches(Noisy(), parts, torch.device("cpu"), workers=workers, keys=keys)]
        assert state() == before
        return found

    found = images(rows, [3, 4, 3], 1)
    # other batches of the same samples under the same keys, as in other processes
    again = images([rows[0].flip(0), rows[1][:5], rows[2]], [3, 4, 3], 2)
    assert torch.equal(found[0].flip(0), again[0]) and torch.equal(found[1][:5], again[1])
    assert torch.equal(found[2], again[2])
    (other,) = images(rows[:1], [4], 1)
    assert (other != found[0]).any()
    noise = found[0] - X[:16]
    assert len({tuple(row.flatten().tolist()) for row in noise}) == 16  # they differ between samples


@pytest.mark.parametrize("workers", [0, 1])
def test_the_seed_gives_a_data_sets_random_numbers(workers):
    def run(seed, outside):
        model = net()
        seed_globally(outside)
        before = state()
        fitted = train(model, Noisy(), ERM(), epochs=2, batch_size=16, validation=0.2, seed=seed, workers=workers)
        assert state() == before
        return weights_of(model), [row["validation_loss"] for row in fitted.epochs]

    (first, losses), (second, same), (third, _) = run(5, 1), run(5, 2), run(6, 1)
    assert_same(first, second)
    assert losses == same
    assert any((first[name] != third[name]).any() for name in first)


class Killed(Exception):
    pass


@pytest.mark.parametrize("workers, after", [(0, 1), (0, 2), (2, 3)])  # 2 is the end of an epoch
def test_a_random_data_set_is_resumed_to_the_same_bits(tmp_path, workers, after):
    steps = []

    def objective(model, x, y, *, key, index):
        if len(steps) == after:
            raise Killed
        steps.append(key)
        return ERM()(model, x, y, key=key, index=index)

    settings = {"epochs": 2, "batch_size": 16, "workers": workers, "validation": 0.2, "optimizer": "sgd"}
    whole, resumed = net(), net()
    train(whole, Noisy(), lambda model, x, y, *, key, index: ERM()(model, x, y, key=key, index=index), **settings)
    with pytest.raises(Killed):
        train(net(), Noisy(), objective, out=tmp_path, checkpoint_steps=1, **settings)
    after = -1
    seed_globally(9)
    train(resumed, Noisy(), objective, out=tmp_path, checkpoint_steps=1, resume=True, **settings)
    assert_same(weights_of(whole), weights_of(resumed))


def test_errors_of_objective_and_model():
    for objective, message in (
        (rp.training.MRT, r"objective: expected an Objective.*got the class MRT itself; create one: MRT\(\.\.\.\)"),
        (torch.nn.CrossEntropyLoss, r"got the class CrossEntropyLoss itself; ERM\(\) is the cross-entropy"),
        (torch.nn.CrossEntropyLoss(), r"got CrossEntropyLoss .*ERM\(\) is the cross-entropy"),
        (torch.nn.functional.cross_entropy, r"got cross_entropy .*ERM\(\)"),
        (lambda model, x, y: 0, "objective: .*key"),
    ):
        with pytest.raises(TypeError, match=message):
            fit(net(), objective, (X, Y), progress=False)
    with pytest.raises(TypeError, match="model: expected a torch.nn.Module, got function"):
        fit(lambda x: x, ERM(), (X, Y), progress=False)
