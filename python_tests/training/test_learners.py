"""Objectives of several models: a plain loop finds the same weights, and runs are resumed to the same bits."""

import csv
import doctest
import json
import math
from dataclasses import dataclass, field

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

import robustperf as rp
from python_tests.support import processes
from python_tests.support.training import Net, assert_same, fails_at, net, train, weights_of
from robustperf import nets
from robustperf.classifier import evaluating, frozen
from robustperf.training import Learner, Objective, batches


@dataclass(frozen=True, eq=False)
class Imitation(Objective):
    """Three learners in the order discriminator, model, peer: the discriminator tells the model's logits from the
    peer's, the model learns the labels and to deceive it, and the peer imitates the model on batches of its own."""

    student: nn.Module = field(repr=False)
    peer: nn.Module = field(repr=False)
    discriminator: nn.Module = field(repr=False)
    peer_lr: float | tuple[float, float] = (0.5, 0.1)

    def _logits(self, network, x):
        with evaluating(network), torch.no_grad():
            return network(x)

    def loss(self, model, x, y, *, key, index):
        logits = model(x)
        with frozen(self.discriminator):
            score = self.discriminator(logits)
        return functional.cross_entropy(logits, y) + 0.5 * functional.softplus(-score).mean()

    def discriminator_loss(self, discriminator, x, y, *, key, index):
        scores = discriminator(torch.cat([self._logits(self.peer, x), self._logits(self.student, x)]))[:, 0]
        signs = torch.ones(len(scores)).index_fill(0, torch.arange(len(x)), -1)
        return functional.softplus(signs * scores).mean(), ((scores * signs) < 0).float().mean(), scores.detach().mean()

    def peer_loss(self, peer, x, y, *, key, index):
        noise = rp.random.uniform(key, index, 1, x[0].numel())[0].view(x.shape)
        return functional.mse_loss(peer(x + 0.1 * noise), self._logits(self.student, x))

    def learners(self, model):
        figures = ("accuracy", "score")
        return [
            Learner("discriminator", self.discriminator, self.discriminator_loss, figures, "sgd", clip=0.01),
            *super().learners(model),
            Learner("peer", self.peer, self.peer_loss, optimizer="adadelta", lr=self.peer_lr, own_batches=True),
        ]


def models(seed=0):
    """(model, peer, discriminator)."""
    torch.manual_seed(seed)
    peer = nn.Sequential(nets.Dropout(0.1), nets.SmallCNN(size=8, width=2))
    return Net(), peer, nn.Sequential(nn.Linear(10, 1))


def run(learners, data, peer_lr=(0.5, 0.1), **settings):
    objective = Imitation(*learners, peer_lr)
    return train(learners[0], data, objective, **{"optimizer": "adam", "lr": 1e-2, **settings})


def assert_same_models(left, right):
    for one, other in zip(left, right, strict=True):
        assert_same(weights_of(one), weights_of(other))


def test_a_plain_loop_finds_the_same_weights(digits):
    fitted_models, own = models(), models()
    fitted = run(fitted_models, digits, validation=None, clip=0.5)
    model, peer, discriminator = own
    objective, key = Imitation(*own), rp.random.key(5)
    _, _, peer_learner = objective.learners(model)
    peer_key = rp.random.fold_in(key, peer_learner.key_salt)
    optimizers = [torch.optim.SGD(discriminator.parameters(), lr=1e-2), torch.optim.Adam(model.parameters(), lr=1e-2),
                  torch.optim.Adadelta(peer.parameters(), lr=0.5)]  # fmt: skip
    for step in range(12):
        index, peer_index = (batches(200, 32, key=each, epoch=step // 6)[step % 6] for each in (key, peer_key))
        assert not torch.equal(index, peer_index)
        optimizers[2].param_groups[0]["lr"] = 0.5 - 0.4 * step / 11
        discriminator_key = rp.random.fold_in(key, Imitation(*own).learners(model)[0].key_salt)
        for place, (learner, loss, own_key, rows, clip) in enumerate([
            (discriminator, objective.discriminator_loss, discriminator_key, index, 0.01),
            (model, objective, key, index, 0.5),
            (peer, objective.peer_loss, peer_key, peer_index, 0.5),
        ]):  # fmt: skip
            step_key = rp.random.fold_in(own_key, step)
            torch.manual_seed(rp.random.fold_in(step_key, 0))
            with nets.drawing(rp.random.fold_in(step_key, rp.random.Salt.DROPOUT), rows):
                found = loss(learner, digits.x[rows], digits.y[rows], key=step_key, index=rows)
            found = found if isinstance(found, tuple) else (found,)
            optimizers[place].zero_grad()
            found[0].backward()
            nn.utils.clip_grad_norm_(learner.parameters(), clip)
            optimizers[place].step()
            first = fitted.columns.index({0: "discriminator_loss", 1: "loss", 2: "peer_loss"}[place])
            assert fitted.steps[step, first] == found[0].item()
    assert_same_models(fitted_models, own)
    assert fitted.columns == (
        "loss", "accuracy", "discriminator_loss", "discriminator_accuracy", "discriminator_score", "peer_loss"
    )  # fmt: skip


def test_each_learner_has_the_weights_of_the_best_epoch_and_a_file(digits, tmp_path):
    found = models()
    fitted = run(found, digits, out=tmp_path, epochs=6, lr=0.05, peer_lr=0.5)
    assert fitted.best < 6  # else the last weights would do
    until_best = models()
    run(until_best, digits, epochs=fitted.best, lr=0.05, peer_lr=0.5)
    assert_same_models(found, until_best)
    for name, model in zip(("model", "peer", "discriminator"), found, strict=True):
        assert_same(load_file(tmp_path / f"{name}.safetensors"), weights_of(model))
    with open(tmp_path / "steps.csv") as file:
        assert next(csv.reader(file)) == ["step", *fitted.columns]
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["peer_optimizer"].startswith("Adadelta") and settings["discriminator_clip"] == 0.01


def test_the_example_in_the_documentation(digits, tmp_path):
    names = {"dataclass": dataclass, "field": field, "nn": nn, "torch": torch, "functional": functional,
             "evaluating": evaluating, "Objective": Objective, "Learner": Learner}  # fmt: skip
    (example,) = doctest.DocTestFinder(recurse=False).find(Objective.learners, "learners", globs=names)
    assert doctest.DocTestRunner().run(example, clear_globs=False).failed == 0
    student, peer, _ = models()
    fitted = train(student, digits, example.globs["Mutual"](student, peer), out=tmp_path, epochs=1)
    assert fitted.columns == ("loss", "accuracy", "peer_loss")
    assert_same(load_file(tmp_path / "peer.safetensors"), weights_of(peer))


KILLED = """
import os, signal, sys
import torch
import robustperf as rp
from python_tests.training.test_learners import Imitation, models, run

torch.set_num_threads(1)
calls, inner = int(sys.argv[1]), Imitation.peer_loss

def peer_loss(*arguments, **named):  # after the updates of the other two
    global calls
    if calls == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    calls -= 1
    return inner(*arguments, **named)

Imitation.peer_loss = peer_loss
run(models(), rp.data.load("digits", "train").limit(200), out=sys.argv[2], resume=True, checkpoint_steps=2, epochs=3)
"""


def test_a_killed_run_of_three_learners_is_resumed_to_the_same_bits(digits, tmp_path):
    straight, resumed = models(), models()
    fitted = run(straight, digits, epochs=3)
    processes.killed(KILLED, "8", str(tmp_path), log=tmp_path.with_suffix(".log"))
    again = run(resumed, digits, out=tmp_path, resume=True, checkpoint_steps=2, epochs=3)
    assert_same_models(straight, resumed)
    assert torch.equal(again.steps, fitted.steps) and again.best == fitted.best


def test_mixed_precision_reaches_every_learner(digits):
    found, dtypes = models(), {}
    for name, model in zip(("model", "peer", "discriminator"), found, strict=True):
        layer = next(each for each in model.modules() if isinstance(each, (nn.Conv2d, nn.Linear)))
        layer.register_forward_hook(lambda module, inputs, output, name=name: dtypes.setdefault(name, []).append(
            (module.training, output.dtype)))  # fmt: skip
    attributes = [set(vars(model)) for model in found]
    run(found, digits, epochs=1, mixed_precision="bf16", validation=None)
    for name in ("model", "peer", "discriminator"):
        assert (True, torch.bfloat16) in dtypes[name] and (True, torch.float32) not in dtypes[name], name
    assert [set(vars(model)) for model in found] == attributes
    assert all(parameter.dtype == torch.float32 for model in found for parameter in model.parameters())


def test_learners_on_the_same_batches_load_them_once(digits):
    read = []

    class Counted(torch.utils.data.Dataset):
        def __len__(self):
            return 64

        def __getitem__(self, sample):
            read.append(sample)
            return digits.x[sample], int(digits.y[sample])

    run(models(), Counted(), epochs=1, validation=None)
    assert len(read) - 1 == 2 * 64  # the model's batches and the peer's; one image is read for a check


class Regression(Objective):
    """No classification: the model's images are compared with their inputs, and a second network's with 1 - x."""

    classifies = False

    def __init__(self, second):
        object.__setattr__(self, "second", second)

    def __repr__(self):
        return "Regression()"

    def loss(self, model, x, y, *, key, index):
        return functional.mse_loss(model(x), x)

    def learners(self, model):
        negative = Learner("negative", self.second, lambda g, x, y, *, key, index: functional.mse_loss(g(x), 1 - x))
        return [negative, *super().learners(model)]


def test_generators_without_a_classifier(digits, tmp_path):
    torch.manual_seed(0)
    first, second = (nets.TiboGenerator(1, 4, 1) for _ in range(2))
    fitted = train(first, digits, Regression(second), validation=None, out=tmp_path, optimizer="adam", epochs=4)
    losses = fitted.steps[:, [0, 2]]
    assert fitted.columns == ("loss", "accuracy", "negative_loss") and fitted.steps[:, 1].isnan().all()
    assert (losses[-1] < 0.8 * losses[0]).all() and fitted.best == 4
    assert_same(load_file(tmp_path / "negative.safetensors"), weights_of(second))


@pytest.mark.parametrize("change, message", [
    ({"discriminator_loss": lambda *a, **k: torch.tensor(1.0)}, "loss of discriminator: expected 3 scalars .*, got 1"),
    ({"peer_loss": lambda peer, x, y, **k: peer(x).mean(1)}, r"peer_loss: expected a scalar tensor, got shape \[32\]"),
    ({"peer_loss": lambda peer, x, y, **k: 1.0}, "peer_loss: expected a scalar tensor, got float"),
])  # fmt: skip
def test_losses_of_another_form(digits, monkeypatch, change, message):
    for name, function in change.items():
        monkeypatch.setattr(Imitation, name, lambda self, *a, function=function, **k: function(*a, **k))
    with pytest.raises((ValueError, TypeError), match=message):
        run(models(), digits, epochs=1)


def test_a_loss_that_is_not_finite_names_its_learner(digits, monkeypatch, tmp_path):
    inner = Imitation.peer_loss
    monkeypatch.setattr(Imitation, "peer_loss", lambda *a, **k: math.nan * inner(*a, **k))
    found = models()
    with pytest.raises(FloatingPointError, match="^peer_loss: expected a finite number, got nan at step 1 .*no check"):
        run(found, digits, out=tmp_path)
    assert all(parameter.isfinite().all() for model in found for parameter in model.parameters())


LOSS = fails_at(-1)


@pytest.mark.parametrize("make, message", [
    (lambda f, g: [], "learners: expected one called 'model', of the model that is trained, got \\[\\]"),
    (lambda f, g: [Learner("model", g, LOSS)], "learners: expected one called 'model'"),
    (lambda f, g: [Learner("student", f, LOSS)], "learners: expected one called 'model'"),
    (lambda f, g: [Learner("model", f, LOSS), g], "learners: expected Learner objects, got TiboGenerator"),
    (lambda f, g: [Learner("model", f, LOSS), Learner("g", g, LOSS), Learner("g", net(), LOSS)], "got 'g' twice"),
    (lambda f, g: [Learner("model", f, LOSS, ("g_loss",)), Learner("g", g, LOSS)], "got 'g_loss' twice"),
    (lambda f, g: [Learner("model", f, LOSS, ("lr",))], "got 'lr' twice"),
    (lambda f, g: [Learner("model", f, LOSS), Learner("part", f.layers[0], LOSS)],
     "models without a parameter in common, got weight of part in model too"),
])  # fmt: skip
def test_wrong_learners(digits, monkeypatch, make, message):
    f, g = net(), nets.TiboGenerator(1, 4, 1)
    objective = Imitation(f, g, g)
    monkeypatch.setattr(Imitation, "learners", lambda self, model: make(f, g))
    with pytest.raises((ValueError, TypeError), match=message):
        train(f, digits, objective)


@pytest.mark.parametrize("change, error, message", [
    ({"name": "Peer"}, ValueError, "name: expected lower-case letters, digits and underscores, got 'Peer'"),
    ({"name": "../peer"}, ValueError, "name: expected lower-case"),
    ({"name": 3}, ValueError, "name: expected lower-case"),
    ({"name": "checkpoint"}, ValueError, "name: 'checkpoint' is a name that checkpoints use"),
    ({"name": "a_optimizer"}, ValueError, "name: 'a_optimizer' is a name"),
    ({"model": abs}, TypeError, "peer: expected a torch.nn.Module, got builtin_function_or_method"),
    ({"model": nn.ReLU()}, ValueError, "peer: expected parameters to train, got none"),
    ({"loss": None}, TypeError, "loss of peer: expected a function, got NoneType"),
    ({"lr": {1: 0.1}}, ValueError, "lr: expected epochs from 0 on"),
    ({"clip": 0}, ValueError, "clip: expected a finite number above 0, got 0"),
    ({"name": "model", "salt": 3}, ValueError, "model: expected no own_batches and no salt"),
])  # fmt: skip
def test_wrong_settings_of_a_learner(change, error, message):
    with pytest.raises(error, match=message):
        Learner(**{"name": "peer", "model": nn.Linear(2, 2), "loss": LOSS, **change})
