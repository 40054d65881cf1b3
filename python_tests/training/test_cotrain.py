"""Co-training: equations 9 and 10 of T against plain loops in float64, and Algorithm 1 in `fit`."""

import copy
import csv
import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import robustperf as rp
from python_tests.support import processes
from python_tests.support.training import Net, assert_same, net, train, weights_of
from robustperf import nets
from robustperf.nets import TiboGenerator
from robustperf.training import ERM, CoTrain, batches, fit

KEY, INDEX = 2**40 + 3, torch.tensor([7, 2**33, 0, 11, 2, 5])
X = torch.rand(6, 1, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([2, 0, 1, 1, 2, 0])


def models(*, norm=False):
    """A classifier and a generator whose images lie on both sides of its boundaries."""
    torch.manual_seed(6)
    f = nn.Sequential(nn.Conv2d(1, 4, 3), *[nn.BatchNorm2d(4)] * norm, nn.Tanh(), nn.Flatten(), nn.Linear(24, 3))
    g = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        *[nn.BatchNorm2d(3)] * norm,
        nn.Tanh(),
        nn.Conv2d(3, 1, 3, padding=1),
        nn.Sigmoid(),
    )
    f[-1].weight.data *= 6
    g[-2].weight.data *= 20
    return f.double(), g.double()


def softmax(logits):
    values = [math.e**logit for logit in logits]
    return [value / sum(values) for value in values]


def by_hand_10(f, g, weight):
    total = 0
    for x, y in zip(X, Y.tolist(), strict=True):
        made = g(x[None])[0].detach()
        p, q = softmax(f(x[None])[0]), softmax(f(made[None])[0])
        crossed = -sum(a * torch.log(b) for a, b in zip(p, q, strict=True))
        total = total - torch.log(p[y]) + weight * crossed / (1 + ((x - made) ** 2).sum())
    return total / len(X)


def by_hand_9(f, g, distance_weight=1):
    """The loss, the mean distance, and how many generated images keep the label."""
    total, distance, same = 0, 0, 0
    for x in X:
        made = g(x[None])[0]
        i = int(f(x[None])[0].argmax())
        p = softmax(f(made[None])[0])
        first, second = sorted(range(len(p)), key=lambda label: -p[label])[:2]
        squares = ((made - x) ** 2).sum()
        total = total + distance_weight * squares / 2 + torch.relu(p[i] - p[second])
        distance, same = distance + squares.item() ** 0.5, same + (first == i)
    return total / len(X), distance / len(X), same


def gradients(loss, model):
    return torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)


def assert_equal(ours, theirs, model):
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    for mine, expected in zip(gradients(ours, model), gradients(theirs, model), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("weight", [0, 0.5, 20])
def test_equation_10(weight):
    f, g = models()
    loss = CoTrain(f, g, weight)(f, X, Y, key=KEY, index=INDEX)
    assert loss.shape == () and loss.dtype == torch.float64
    assert_equal(loss, by_hand_10(f, g, weight), f)


def test_equation_9():
    f, g = models()
    loss, distance = CoTrain(f, g, 1).generator_loss(X, key=KEY, index=INDEX)
    expected, expected_distance, same = by_hand_9(f, g)
    assert 0 < same < len(X)  # both cases of the maximum
    assert_equal(loss, expected, g)
    assert distance.item() == pytest.approx(expected_distance, rel=1e-12) and not distance.requires_grad


def everything(model):
    return {
        **weights_of(model),
        **{f"mode {name}": torch.tensor(module.training) for name, module in model.named_modules()},
    }


def test_each_loss_changes_its_own_model_only():
    f, g = models(norm=True)
    f[0].bias.requires_grad_(False)
    objective = CoTrain(f, g, 0.5)
    before = everything(g)
    objective(f, X, Y, key=KEY, index=INDEX).backward()
    assert_same(everything(g), before)
    assert all(parameter.grad is None for parameter in g.parameters())
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in f.parameters())
    assert f[1].num_batches_tracked == 1  # one forward pass of the clean and the adversarial images
    f.zero_grad()
    before, asked = everything(f), [parameter.requires_grad for parameter in f.parameters()]
    objective.generator_loss(X, key=KEY, index=INDEX)[0].backward()
    assert_same(everything(f), before)
    assert [parameter.requires_grad for parameter in f.parameters()] == asked
    assert all(parameter.grad is None for parameter in f.parameters())
    assert all(parameter.grad is not None for parameter in g.parameters())
    assert g[1].num_batches_tracked == 1


def test_generated_images_do_not_depend_on_each_other_through_batch_norm():
    f, g = models(norm=True)
    f.eval()
    whole = CoTrain(f, g, 0.5)(f, X, Y, key=KEY, index=INDEX)
    parts = [CoTrain(f, g, 0.5)(f, X[[n]], Y[[n]], key=KEY, index=INDEX[[n]]) for n in range(6)]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_the_dropout_of_the_generator_depends_on_the_sample():
    f, g = models()
    g = nn.Sequential(nets.Dropout(0.5), g)
    objective = CoTrain(f, g, 0.5)
    loss, distance = objective.generator_loss(X, key=KEY, index=INDEX)
    order = torch.randperm(6)
    again, _ = objective.generator_loss(X[order], key=KEY, index=INDEX[order])
    torch.testing.assert_close(loss, again)
    assert objective.generator_loss(X, key=KEY + 1, index=INDEX)[1] != distance


def pair(seed=0, kind=Net, **kwargs):
    model = net(seed, kind, **kwargs)
    return model, TiboGenerator(1, 4, 1)


def test_a_plain_loop_finds_the_same_weights(digits):
    (f, g), (own, own_g) = (pair(kind=nets.SmallCNN, size=8, width=4) for _ in range(2))
    fitted = train(f, digits, CoTrain(f, g, 0.5, lr={0: 1e-2, 1: 1e-3}), validation=None, optimizer="adam")
    objective = CoTrain(own, own_g, 0.5)
    key = rp.random.key(5)
    g_key = rp.random.fold_in(key, 0x67656E)
    optimizer, g_optimizer = torch.optim.Adam(own.parameters(), lr=1e-3), torch.optim.Adam(own_g.parameters(), lr=1e-2)
    steps = [
        [batches(200, 32, key=each, epoch=epoch)[n] for epoch in range(2) for n in range(6)] for each in (key, g_key)
    ]
    rows = []
    for step, (index, g_index) in enumerate(zip(*steps, strict=True)):
        loss = objective(own, digits.x[index], digits.y[index], key=rp.random.fold_in(key, step), index=index)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        g_optimizer.param_groups[0]["lr"] = 1e-2 if step < 6 else 1e-3
        g_loss, distance = objective.generator_loss(
            digits.x[g_index], key=rp.random.fold_in(g_key, step), index=g_index
        )
        g_optimizer.zero_grad()
        g_loss.backward()
        g_optimizer.step()
        rows.append([loss.item(), g_loss.item(), distance.item()])
        assert not torch.equal(index, g_index)
    assert_same(weights_of(f), weights_of(own))
    assert_same(weights_of(g), weights_of(own_g))
    assert fitted.steps[:, [0, 2, 3]].tolist() == rows and len(rows) == 12


def test_the_folder_and_tensorboard(digits, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    f, g = pair()
    fitted = train(f, digits, CoTrain(f, g, 0.5), out=tmp_path, log_with="tensorboard", epochs=3, optimizer="adam")
    assert_same(load_file(tmp_path / "model.safetensors"), weights_of(f))
    assert_same(load_file(tmp_path / "generator.safetensors"), weights_of(g))
    with open(tmp_path / "steps.csv") as file:
        steps = list(csv.DictReader(file))
    assert list(steps[0]) == ["step", "loss", "accuracy", "generator_loss", "generator_distance"]
    assert [[float(value) for value in row.values()][1:] for row in steps] == fitted.steps.tolist()
    with open(tmp_path / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    for row, epoch, part in zip(rows, fitted.epochs, fitted.steps.split(5), strict=True):
        assert {name: float(value) for name, value in row.items()} == epoch
        assert [epoch["generator_loss"], epoch["generator_distance"]] == pytest.approx(part.mean(0)[2:].tolist())
    (file,) = tmp_path.rglob("events.out.tfevents*")
    events = EventAccumulator(str(file))
    events.Reload()
    distances = [event.value for event in events.Scalars("generator_distance")]
    assert distances == pytest.approx(fitted.steps[:, 3].tolist()) and len(events.Scalars("epoch/generator_loss")) == 3


def test_both_have_the_weights_of_the_best_epoch(digits, tmp_path):
    f, g = pair()
    fitted = train(f, digits, CoTrain(f, g, 0.5), out=tmp_path, epochs=6, optimizer="adam", lr=0.05)
    assert fitted.best < 6
    at_best, g_at_best = pair()
    train(
        at_best, digits, CoTrain(at_best, g_at_best, 0.5), epochs=fitted.best, validation=0.1, optimizer="adam", lr=0.05
    )
    assert_same(weights_of(f), weights_of(at_best))
    assert_same(weights_of(g), weights_of(g_at_best))


def test_the_generator_comes_closer_and_the_classifier_learns(digits):
    f, g = pair(kind=nets.SmallCNN, size=8)
    fitted = train(f, digits, CoTrain(f, g, 0.5), epochs=10, batch_size=20, optimizer="adam", lr=5e-3)
    first, last = fitted.epochs[0], fitted.epochs[-1]
    assert last["generator_distance"] < 0.8 * first["generator_distance"]
    assert max(row["validation_accuracy"] for row in fitted.epochs) > 0.5


KILLED = """
import os, signal, sys
import torch
import robustperf as rp
from python_tests.support import processes
from python_tests.support.training import train
from python_tests.training.test_cotrain import pair
from robustperf.training import CoTrain

torch.set_num_threads(1)
calls, inner = int(sys.argv[1]), CoTrain._generator_step

def generator_step(*arguments, **named):  # after the classifier's update
    global calls
    if calls == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    calls -= 1
    return inner(*arguments, **named)

CoTrain._generator_step = generator_step
f, g = pair()
train(f, rp.data.load("digits", "train").limit(200), CoTrain(f, g, 0.5), out=sys.argv[2], resume=True,
      checkpoint_steps=2, optimizer="adam", epochs=3)
"""


def test_a_killed_run_is_resumed_to_the_same_bits(digits, tmp_path):
    (f, g), (resumed, resumed_g) = pair(), pair()
    fitted = train(f, digits, CoTrain(f, g, 0.5), optimizer="adam", epochs=3)
    processes.killed(KILLED, "7", str(tmp_path), log=tmp_path.with_suffix(".log"))
    again = train(
        resumed,
        digits,
        CoTrain(resumed, resumed_g, 0.5),
        out=tmp_path,
        resume=True,
        checkpoint_steps=2,
        optimizer="adam",
        epochs=3,
    )
    assert_same(weights_of(f), weights_of(resumed))
    assert_same(weights_of(g), weights_of(resumed_g))
    assert torch.equal(again.steps, fitted.steps) and again.best == fitted.best


def test_another_number_of_epochs_is_refused_where_the_generators_rate_is_a_line(digits, tmp_path):
    f, g = pair()
    objective = CoTrain(f, g, 0.5, lr=(0.1, 0.001))
    train(f, digits, objective, out=tmp_path, epochs=1, optimizer="adam")
    with pytest.raises(ValueError, match="epochs was 1 and is 2"):
        train(f, digits, objective, out=tmp_path, epochs=2, optimizer="adam", resume=True)


@pytest.mark.parametrize("change, message", [
    ({"weight": 0.25}, "objective was .*0.5.* and is .*0.25"),
    ({"lr": 0.1}, "generator_lr was 'None' and is '0.1'"),
    ({"optimizer": "sgd"}, "generator_optimizer was 'Adam"),
    ({"generator": TiboGenerator(1, 4, 2)}, "generator was 'TiboGenerator of"),
])  # fmt: skip
def test_another_run_in_the_folder_is_refused(digits, tmp_path, change, message):
    f, g = pair()
    train(f, digits, CoTrain(f, g, 0.5), out=tmp_path, epochs=1, optimizer="adam")
    with pytest.raises(ValueError, match=message):
        train(
            f,
            digits,
            CoTrain(**{"classifier": f, "generator": g, "weight": 0.5, **change}),
            out=tmp_path,
            epochs=1,
            optimizer="adam",
            resume=True,
        )


@pytest.mark.parametrize("precision, clip", [("bf16", None), ("no", 1e-3)])
def test_mixed_precision_and_clipping_reach_the_generator(digits, precision, clip):
    f, g = pair()
    plain, plain_g = pair()
    attributes = set(vars(g))
    train(f, digits, CoTrain(f, g, 0.5), epochs=1, mixed_precision=precision, clip=clip, optimizer="sgd")
    train(plain, digits, CoTrain(plain, plain_g, 0.5), epochs=1, optimizer="sgd")
    assert set(vars(g)) == attributes and all(parameter.dtype == torch.float32 for parameter in g.parameters())
    moved, moved_plain = (
        torch.stack([(a - b).norm() for a, b in zip(after.parameters(), pair()[1].parameters(), strict=True)]).norm()
        for after in (g, plain_g)
    )
    if clip is not None:
        assert moved < 0.1 * moved_plain  # 5 steps of 0.05 1e-3 at most
    else:
        torch.testing.assert_close(moved, moved_plain, rtol=0.05, atol=0)
        assert moved != moved_plain


class NanInSecondStep(TiboGenerator):
    """A generator whose images are NaN in its second step."""

    def forward(self, x):
        second = self.training and self.layers[1].num_batches_tracked == 1
        return super().forward(x) * (math.nan if second else 1)


def test_a_generator_loss_that_is_not_finite(digits, tmp_path):
    f, g = net(), NanInSecondStep(1, 4, 1)
    with pytest.raises(FloatingPointError, match="^generator_loss: expected a finite number, got nan at step 2 "):
        train(f, digits, CoTrain(f, g, 0.5), out=tmp_path, optimizer="adam")
    assert all(parameter.isfinite().all() for parameter in g.parameters())


def test_errors(digits):
    f, g = models()
    other = copy.deepcopy(f)
    for arguments in ((f, lambda x: x, 1), (f, None, 1)):
        with pytest.raises(TypeError, match="generator: expected a torch.nn.Module, got"):
            CoTrain(*arguments)
    with pytest.raises(TypeError, match="classifier: expected a torch.nn.Module, got function"):
        CoTrain(lambda x: x, g, 1)
    with pytest.raises(ValueError, match="generator: expected another module than the classifier"):
        CoTrain(f, f, 1)
    with pytest.raises(ValueError, match="generator: expected parameters to train, got none"):
        CoTrain(f, nn.Sigmoid(), 1)
    for wrong in (-1, math.nan, math.inf, "1", None, True):
        with pytest.raises(ValueError, match="weight: expected a finite number >= 0, got"):
            CoTrain(f, g, wrong)
    with pytest.raises(ValueError, match="lr: expected"):
        CoTrain(f, g, 1, lr={1: 0.1})
    with pytest.raises(ValueError, match="classifier: expected the model that is trained, the same object, got a"):
        CoTrain(f, g, 1)(other, X, Y, key=KEY, index=INDEX)
    cropped = CoTrain(f, nn.Conv2d(1, 1, 3).double(), 1)
    message = r"generator\(x\): expected shape \[6, 1, 5, 4\], got \[6, 1, 3, 2\]"
    with pytest.raises(ValueError, match=message):
        cropped(f, X, Y, key=KEY, index=INDEX)
    with pytest.raises(ValueError, match=message):
        cropped.generator_loss(X, key=KEY, index=INDEX)
    with pytest.raises(ValueError, match=r"index: expected shape \[6\]"):
        CoTrain(f, g, 1).generator_loss(X, key=KEY, index=INDEX[:2])
    with pytest.raises(ValueError, match="x: expected at least one image"):
        CoTrain(f, g, 1).generator_loss(X[:0], key=KEY, index=INDEX[:0])
    with pytest.raises(ValueError, match="at least two classes"):
        CoTrain(nn.Sequential(nn.Flatten(), nn.Linear(20, 1)).double(), g, 1).generator_loss(X, key=KEY, index=INDEX)


def test_errors_of_fit(digits):
    f, g = pair()
    with pytest.raises(ValueError, match="classifier: expected the model that is trained"):
        train(net(), digits, CoTrain(f, g, 1))
    with pytest.raises(ValueError, match="optimizer: expected one of the generator's own, in the objective"):
        train(f, digits, CoTrain(f, g, 1), optimizer=torch.optim.SGD(f.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="optimizer: expected one of adadelta"):
        train(f, digits, CoTrain(f, g, 1, optimizer="lion"))
    fit(
        f,
        CoTrain(f, g, 1, optimizer=torch.optim.SGD(g.parameters(), lr=0.1)),
        digits,
        epochs=1,
        batch_size=100,
        optimizer=torch.optim.SGD(f.parameters(), lr=0.1),
        progress=False,
    )
    fit(f, ERM(), digits, epochs=1, batch_size=100, progress=False)  # an objective of one learner again
