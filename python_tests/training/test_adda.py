"""ADDA: its losses by hand, adaptation to a shifted domain, resumed runs, and wrong input."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

import robustperf as rp
from python_tests.support.training import assert_same, weights_of
from robustperf import nets
from robustperf.training import ADDA, ERM, evaluate, fit

KEY, INDEX = 2**40 + 3, torch.tensor([7, 2**33, 0, 11, 2, 5])
SHIFT = (0.28, 0.24)


class Blobs(nn.Module):
    """A classifier of images of two constant channels."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(8, 32), nets.Dropout(0.1), nn.ReLU(), nn.Linear(32, 8), nn.ReLU()
        )
        self.classifier = nn.Linear(8, 3)

    def forward(self, x):
        return self.classifier(self.encoder(x))


def blobs(seed, shift=(0.0, 0.0), count=300):
    """Three Gaussian blobs in the plane, as images [N, 2, 2, 2], and their labels."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (count,), generator=generator)
    centres = torch.tensor([[0.3, 0.3], [0.7, 0.3], [0.5, 0.7]])
    points = centres[y] + 0.06 * torch.randn(count, 2, generator=generator) + torch.tensor(shift)
    return points.view(count, 2, 1, 1).expand(count, 2, 2, 2).contiguous(), y


@pytest.fixture(scope="module")
def source():
    """A classifier that was trained on blobs without a shift."""
    torch.manual_seed(0)
    model = Blobs()
    optimizer, (x, y) = torch.optim.Adam(model.parameters(), lr=2e-2), blobs(0)
    for step in range(80):
        optimizer.zero_grad()
        ERM()(model, x, y, key=step, index=torch.arange(len(x))).backward()
        optimizer.step()
    return model


def adapt(model, objective, **settings):
    adam = partial(torch.optim.Adam, lr=3e-3, betas=(0.5, 0.999))
    settings = {"epochs": 2, "optimizer": adam, "validation": None, "progress": False, **settings}
    return fit(model, objective, blobs(0), **settings)


def test_beats_a_classifier_of_the_source_on_a_shifted_target(source):
    model, target = copy.deepcopy(source), blobs(2, SHIFT)
    before = evaluate(source, target).top(1)
    fitted = adapt(model, ADDA(blobs(1, SHIFT)[0], model, width=32), epochs=25)
    assert before < 0.8 and evaluate(source, blobs(3)).top(1) > 0.98
    assert evaluate(model, target).top(1) > 0.93
    assert fitted.columns == ("loss", "accuracy", "discriminator_loss", "discriminator_accuracy")
    assert fitted.best == len(fitted.epochs)  # the last: source images cannot choose


def by_hand(objective, model, source, x):
    """(The encoder's loss, the discriminator's loss, its accuracy), image by image."""
    rows = (rp.random.uniform(rp.random.fold_in(KEY, rp.random.Salt.TARGET), INDEX, 1, 1)[0, :, 0] * 40).long()
    target = objective.target[rows]
    d_source = [torch.sigmoid(objective.discriminator.layers(source.encoder(image[None]))) for image in x]
    d_target = [torch.sigmoid(objective.discriminator.layers(model.encoder(image[None]))) for image in target]
    of_source = -torch.stack([d.log() for d in d_source]).mean()
    of_target = -torch.stack([(1 - d).log() for d in d_target]).mean()
    right = sum(d > 0.5 for d in d_source) / len(x) + sum(d < 0.5 for d in d_target) / len(x)
    return -torch.stack([d.log() for d in d_target]).mean(), of_source + of_target, right / 2


def test_the_losses_by_hand():
    torch.manual_seed(0)
    source = Blobs().double().eval()
    model = copy.deepcopy(source)
    for parameter in model.encoder.parameters():
        parameter.data.add_(0.1)
    objective = ADDA(blobs(1, SHIFT, count=40)[0].double(), source, width=5)
    for parameter in objective.discriminator.layers.parameters():
        parameter.data.mul_(3)
    x, y = (each[:6] for each in blobs(0))
    x = x.double()
    with pytest.warns(UserWarning, match="trained on the source"):
        loss = objective(model, x, y, key=KEY, index=INDEX)
    of_discriminator, accuracy = objective.discriminator_loss(objective.discriminator, x, y, key=KEY, index=INDEX)
    expected, expected_of_discriminator, expected_accuracy = by_hand(objective, model, source, x)
    for value, other, network in (
        (loss, expected, model.encoder),
        (of_discriminator, expected_of_discriminator, objective.discriminator.layers),
    ):
        torch.testing.assert_close(value, other, rtol=1e-9, atol=0)
        parameters = list(network.parameters())
        for mine, by_formula in zip(
            torch.autograd.grad(value, parameters, retain_graph=True),
            torch.autograd.grad(other, parameters, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(mine, by_formula, rtol=1e-7, atol=1e-12)
    assert accuracy.item() == pytest.approx(expected_accuracy.item()) and not accuracy.requires_grad
    loss.backward()
    of_discriminator.backward()
    for network in (model.classifier, objective.discriminator.source):
        assert all(parameter.grad is None for parameter in network.parameters())


def test_target_images_depend_on_key_and_sample_only(source):
    objective, (x, y) = ADDA(blobs(1)[0], source), (each[:6] for each in blobs(0))
    whole = objective(source, x, y, key=KEY, index=INDEX)
    parts = [objective(source, x[[n]], y[[n]], key=KEY, index=INDEX[[n]]) for n in range(6)]
    torch.testing.assert_close(whole, torch.stack(parts).mean())
    assert objective(source, x, y, key=KEY + 1, index=INDEX) != whole


def test_the_last_layer_and_the_source_are_kept(source):
    model = copy.deepcopy(source)
    before = weights_of(model)
    objective = ADDA(blobs(1, SHIFT)[0], model)
    adapt(model, objective, optimizer=partial(torch.optim.Adam, lr=1e-2, weight_decay=0.1), epochs=1)
    assert_same(weights_of(objective.discriminator.source), before)
    assert_same(weights_of(model.classifier), weights_of(source.classifier))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not torch.equal(model.encoder[1].weight, source.encoder[1].weight)


def test_a_run_resumes_to_the_same_bits_with_its_own_source(source, tmp_path):
    """Also where the objective of the second call has another source encoder and discriminator."""
    whole, interrupted = copy.deepcopy(source), copy.deepcopy(source)
    torch.manual_seed(1)
    objective = ADDA(blobs(1, SHIFT), whole, width=16)
    fitted = adapt(whole, objective)
    torch.manual_seed(1)
    first = ADDA(blobs(1, SHIFT), interrupted, width=16)

    def interrupt(step):
        if step == 6:
            raise KeyboardInterrupt

    settings = {"out": tmp_path, "checkpoint_steps": 3}
    with pytest.raises(KeyboardInterrupt):
        adapt(interrupted, first, after_step=interrupt, **settings)
    model = copy.deepcopy(source)
    nn.init.normal_(model.encoder[1].weight)
    again = ADDA(blobs(1, SHIFT), model, width=16)
    resumed = adapt(model, again, resume=True, **settings)
    assert_same(weights_of(model), weights_of(whole))
    assert_same(weights_of(again.discriminator), weights_of(objective.discriminator))
    torch.testing.assert_close(resumed.steps, fitted.steps, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(ValueError, match="objective"):
        adapt(model, ADDA(blobs(1, SHIFT), model, width=17), resume=True, **settings)


class Unlabelled(torch.utils.data.Dataset):
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, number):
        return self.x[number]


@pytest.mark.parametrize("kind", [
    lambda x: (x, torch.full((len(x),), -1)), Unlabelled, lambda x: torch.utils.data.DataLoader(Unlabelled(x)),
    lambda x: rp.data.Dataset("blobs", x, torch.zeros(len(x), dtype=torch.int64), 3),
])  # fmt: skip
def test_targets_of_every_kind(source, kind):
    x, y = (each[:6] for each in blobs(0))
    target = blobs(1)[0].clamp(0, 1)
    expected = ADDA(target, source)
    objective = ADDA(kind(target), source)
    objective.discriminator.load_state_dict(expected.discriminator.state_dict())
    found = objective(source, x, y, key=KEY, index=INDEX)
    torch.testing.assert_close(found, expected(source, x, y, key=KEY, index=INDEX), rtol=0, atol=0)
    assert "300 images" in repr(objective)


@pytest.mark.parametrize("name, layer", [("lenet", "classifier"), ("robey-cnn", "head.4"), ("resnet20", "dense")])
def test_networks(name, layer):
    """The last linear layer is found, and the features are what enters it."""
    torch.manual_seed(0)
    network = nets.build(name, in_channels=3, classes=7, **({} if name == "resnet20" else {"size": 16})).eval()
    x = torch.rand(6, 3, 16, 16)
    objective = ADDA(x, network)
    assert objective.layer == layer
    features, logits = objective._features(network, x)
    torch.testing.assert_close(network.get_submodule(layer)(features), network(x))
    assert objective.discriminator(features).shape == (6,) and logits.shape == (6, 7)


@pytest.mark.parametrize("make, message", [
    (lambda f: ADDA(blobs(0)[0], f.forward), "source: expected a torch.nn.Module"),
    (lambda f: ADDA(blobs(0)[0], f, "encoder.9"), "layer: expected the name of a module"),
    (lambda f: ADDA(blobs(0)[0], f, "encoder.1"), "layer: expected the last layer"),
    (lambda f: ADDA(blobs(0)[0], nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten())), "layer: expected the name of the"),
    (lambda f: ADDA(blobs(0)[0], f, width=0), "width"),
    (lambda f: ADDA(blobs(0)[0], f, lr=0), "lr"),
    (lambda f: ADDA(blobs(0)[0][:0], f), "target: expected images, got none"),
    (lambda f: ADDA(torch.rand(9, 2, 3, 3), f), r"target: expected images that the source .* takes, got \[2, 3, 3"),
    (lambda f: ADDA(torch.full((9, 2, 2, 2), math.nan), f), "target"),
    (lambda f: ADDA(7, f), "target: expected a Dataset"),
])  # fmt: skip
def test_wrong_arguments(source, make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make(source)


def test_wrong_runs(source):
    x, y = blobs(0)
    target = blobs(1)[0]
    with pytest.raises(ValueError, match="target: expected at least as many images as a batch has, 64, got 20"):
        adapt(copy.deepcopy(source), ADDA(target[:20], source))
    anything = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"target: .* of the source's shape \[2, 2, 2\], got \[2, 4, 4\]"):
        with pytest.warns(UserWarning, match="trained"):
            adapt(anything, ADDA(torch.rand(99, 2, 4, 4), anything))
    with pytest.raises(ValueError, match="model: expected the source classifier or a copy of it"):
        adapt(Blobs(), ADDA(target, source))
    with pytest.raises(ValueError, match="validation: expected None"):
        adapt(copy.deepcopy(source), ADDA(target, source), validation=0.1)
    objective = ADDA(target, source)
    with pytest.raises(TypeError, match="model: expected a torch.nn.Module"):
        objective(source.forward, x[:6], y[:6], key=KEY, index=INDEX)
    with pytest.warns(UserWarning, match="source: expected a classifier that was trained on the source domain"):
        ADDA(target, model := Blobs())(model, x, y, key=KEY, index=torch.arange(300))
