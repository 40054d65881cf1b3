"""What `fit` trains: weights, epochs, rates, precision, and what it leaves alone."""

import itertools

import pytest
import torch
from torch.utils.data import TensorDataset

import robustperf as rp
from python_tests.support.training import KERNEL, Net, assert_same, net, train, weights_of
from robustperf import nets, training
from robustperf.training import ERM, MRT, batches
from robustperf.training.batches import held_out


@pytest.mark.parametrize(
    "objective",
    [ERM(), MRT(KERNEL, k=3), training.MAT(KERNEL, k=2), training.MDA(KERNEL, k=2), training.AugMix()],
    ids=lambda objective: type(objective).__name__,
)
def test_a_plain_loop_finds_the_same_weights(digits, objective):
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
    trained, held = held_out(200, 0.2, key=rp.random.key(5))
    assert training.evaluate(model, digits.rows(held)).top(1) == max(accuracies)
    assert sorted([*trained.tolist(), *held.tolist()]) == list(range(200)) and len(held) == 40


def test_a_separate_validation_set(digits):
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

    class Recording(Net):
        def forward(self, x):
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    model = net(kind=Recording)
    train(model, digits, ERM(), epochs=1, mixed_precision="bf16", validation=None)
    assert seen[0] == torch.float32  # the check before accelerate prepares the model
    assert len(seen) >= 7 and set(seen[1:]) == {torch.bfloat16}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_gradients_are_clipped(digits):
    norms = []

    class Recording(torch.optim.SGD):
        def step(self, *arguments):
            gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
            norms.append(torch.cat(gradients).norm().item())
            return super().step(*arguments)

    train(net(), digits, ERM(), epochs=1, optimizer=lambda parameters: Recording(parameters, lr=0.1))
    most = 0.5 * min(norms)
    norms.clear()
    train(net(), digits, ERM(), epochs=1, optimizer=lambda parameters: Recording(parameters, lr=0.1), clip=most)
    assert norms == pytest.approx([most] * len(norms), rel=1e-4)


@pytest.mark.parametrize("lr, expected", [
    (None, [0.05] * 12), (0.5, [0.5] * 12), ((0.5, 0.06), [0.5 - 0.04 * step for step in range(12)]),
    ({0: 0.5, 1: 0.1}, [0.5] * 6 + [0.1] * 6),
])  # fmt: skip
def test_learning_rates(digits, lr, expected):
    rates = []

    class Recording(torch.optim.SGD):
        def step(self, *arguments):
            rates.append(self.param_groups[0]["lr"])
            return super().step(*arguments)

    model = net()
    train(model, digits, ERM(), optimizer=Recording(model.parameters(), lr=0.05), lr=lr, validation=None)
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
