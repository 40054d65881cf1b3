"""Losses, gradients and weights that are not finite: no update is made and nothing is saved."""

import math

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import GradientAccumulationPlugin
from torch import nn

import robustperf as rp
from python_tests.support.training import assert_same, fails_at, net, train, weights_of
from robustperf.nets import weights_file
from robustperf.training import ERM, CoTrain

DATA = rp.data.Dataset(
    "random", torch.rand(96, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(96) % 10, 10
)


class NanGradient(nn.Module):
    """A linear model whose gradient is NaN for a batch with an image whose first pixel is 1."""

    def __init__(self):
        super().__init__()
        self.inner, self.scale = nn.Linear(64, 10), nn.Parameter(torch.zeros(()))

    def forward(self, x):
        bad = (x[:, 0, 0, 0] == 1).any()
        return self.inner(x.flatten(1)) + ((0 * self.scale).abs().sqrt() if bad else 0)


def with_bad_rows(*rows):
    x = DATA.x.clamp(max=0.99)
    x[list(rows), 0, 0, 0] = 1
    return rp.data.Dataset("bad", x, DATA.y, 10)


def times(factor):
    """ERM, multiplied by a factor."""

    def objective(model, x, y, *, key, index):
        return factor * ERM()(model, x, y, key=key, index=index)

    return objective


@pytest.fixture
def fresh_accelerator():
    """accelerate keeps its state in classes."""
    states = [each._shared_state for each in (AcceleratorState, GradientState)]
    before = [dict(state) for state in states]
    yield
    for state, kept in zip(states, before, strict=True):
        state.clear()
        state.update(kept)


def test_gradient_accumulation_is_refused(fresh_accelerator, monkeypatch):
    before, model = net(), net()
    message = "accelerator: expected gradient_accumulation_steps=1, got 4 .*batch_size 4 times as large"
    for own in (
        Accelerator(cpu=True, gradient_accumulation_steps=4),
        Accelerator(cpu=True, gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=4)),
    ):
        with pytest.raises(ValueError, match=message):
            train(model, DATA, ERM(), accelerator=own)
    # an accelerator of `fit` neither takes over the caller's setting nor changes it
    train(net(), DATA, ERM(), epochs=1)
    assert own.gradient_accumulation_steps == 4
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with pytest.raises(ValueError, match=message):
        train(model, DATA, ERM())
    assert_same(weights_of(model), weights_of(before))


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("bad, where", [(None, 1), (0, 1), (2, 3)], ids=["all", "first batch", "last batch"])
def test_a_gradient_that_is_not_finite_stops_the_run_before_the_update(tmp_path, clip, bad, where):
    """`bad`: in which batch of the epoch."""
    batches = rp.training.batches(96, 32, key=rp.random.key(5), epoch=0)
    data = with_bad_rows(*(range(96) if bad is None else [int(batches[bad][0])]))
    model, steps = NanGradient(), []

    class Counted(torch.optim.SGD):
        def step(self, *arguments):
            steps.append(1)
            return super().step(*arguments)

    message = (
        r"gradient of loss: expected finite numbers, got others in scale at "
        rf"step {where} \(epoch 1, batch {where}, samples .*no checkpoint yet"
    )
    with pytest.raises(FloatingPointError, match=message):
        train(
            model,
            data,
            ERM(),
            epochs=1,
            optimizer=Counted(model.parameters(), lr=0.1),
            validation=None,
            clip=clip,
            out=tmp_path,
        )
    assert len(steps) == where - 1
    assert all(parameter.isfinite().all() and parameter.grad is None for parameter in model.parameters())
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_large_gradient_is_finite():
    """The square of its norm overflows float32."""
    model = net(kind=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    train(model, DATA, times(1e25), epochs=1, optimizer="sgd", lr=1e-25)
    plain = net(kind=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    train(plain, DATA, ERM(), epochs=1, optimizer="sgd", lr=1.0)
    for got, want in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """Finite losses and gradients, and a rate that takes the weights to inf at the epoch's last step."""
    rates = {0: 1e-6, 1: 3e38}
    model = net(kind=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    with pytest.raises(
        FloatingPointError,
        match=r"model: expected finite weights, got others in 1.\w+ after step 2; "
        ".*checkpoint.safetensors is of step 1",
    ):
        train(
            model, DATA, times(1e5), epochs=3, batch_size=96, optimizer="sgd", lr=rates, validation=None, out=tmp_path
        )
    for name in ("model", "checkpoint"):
        weights, _ = weights_file.read(tmp_path / f"{name}.safetensors")
        assert all(value.isfinite().all() for value in weights.values())
    with pytest.raises(FloatingPointError, match="model: expected finite weights"):  # without a folder too
        train(net(), DATA, times(1e5), epochs=2, batch_size=96, optimizer="sgd", lr=rates, validation=None)
    # within an epoch the next loss shows it, and the message does not blame that batch
    with pytest.raises(FloatingPointError, match=r"loss: .*got \w+, where \S+ is not finite since the step before, at"):
        train(net(), DATA, times(1e5), epochs=1, batch_size=32, optimizer="sgd", lr=3e38, validation=None)


def test_buffers_that_were_never_finite_are_accepted():
    model = net()
    model.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    train(model, DATA, ERM(), epochs=1)


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.EmbeddingBag(65, 10, sparse=True, mode="sum")

    def forward(self, x):
        return self.table((x.flatten(1) > 0.5).long() * torch.arange(1, 65))


def test_sparse_gradients():
    train(Sparse(), DATA, ERM(), epochs=1, optimizer="sgd")


class BadGenerator(nn.Module):
    """A generator whose gradient is NaN from the second step on."""

    def __init__(self):
        super().__init__()
        self.shift, self.calls = nn.Parameter(torch.zeros(1, 1, 8, 8)), 0

    def forward(self, x):
        self.calls += torch.is_grad_enabled()
        return x + self.shift + ((0 * self.shift).abs().sqrt() if self.calls > 1 else 0)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_the_gradient_of_the_generator_is_checked_too(clip):
    model, generator = net(), BadGenerator()
    with pytest.raises(FloatingPointError, match="gradient of generator_loss: .* in shift at step 2 "):
        train(model, DATA, CoTrain(model, generator, 1.0), epochs=1, clip=clip)
    assert generator.shift.isfinite().all() and all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_scaler_may_skip_updates(fresh_accelerator, clip):
    """As in fp16: too large a scale is halved until the gradients are finite; below a limit that is an error."""
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    model = net()
    fitted = train(model, DATA, times(2.0**10), epochs=6, accelerator=accelerator, optimizer="sgd", lr=1e-4, clip=clip)
    assert len(fitted.steps) == 12 and 2.0**114 <= accelerator.scaler.get_scale() < 2.0**126
    assert all(value.isfinite().all() for value in model.state_dict().values())
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**-14)
    bad = NanGradient()
    with pytest.raises(FloatingPointError, match="gradient of loss: .* in scale at step 4 "):
        train(bad, with_bad_rows(*range(96)), ERM(), epochs=3, accelerator=accelerator, optimizer="sgd", clip=clip)
    assert all(parameter.isfinite().all() for parameter in bad.parameters())


def test_a_loss_that_is_not_finite_is_named_before_its_gradient():
    with pytest.raises(FloatingPointError, match=r"^loss: expected a finite number, got nan at step 2 "):
        train(net(), DATA, fails_at(1, math.nan))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.optim.SGD(net().parameters(), lr=0.1),
        lambda: lambda parameters: torch.optim.SGD(net().parameters(), lr=0.1),
    ],
    ids=["optimizer", "function"],
)
def test_an_optimizer_of_another_model_is_refused(make):
    """It would train nothing."""
    with pytest.raises(ValueError, match="optimizer: expected one of the model's parameters, got one that has none"):
        train(net(), DATA, optimizer=make())
