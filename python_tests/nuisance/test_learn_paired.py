"""Kernels that are learned from pairs: the loss by hand, what they reconstruct, their ball, files and wrong input."""

import json
import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

import robustperf as rp
from python_tests.support.learned import INDEX, images
from python_tests.support.training import assert_same
from robustperf.nets.paired_generator import PairedGenerator
from robustperf.nuisance import LearnedKernel, learn_paired
from robustperf.training import MAT, MRT
from robustperf.training.conditional_vae import ConditionalVae

KEY = 2**40 + 1
QUICK = {"width": 2, "style_dim": 2, "iterations": 4, "batch_size": 2, "checkpoint_steps": 2, "progress": False}


def pairs(count=64, seed=0):
    """Smooth images [count, 1, 8, 8], and each of them brightened by an amount of its own."""
    x = 0.5 * functional.interpolate(images(count, 1, 2, seed=seed), size=8, mode="bilinear")
    amount = 0.1 + 0.4 * torch.rand(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed + 1))
    return x, x + amount


X, SHIFTED = pairs()


def network(dtype=torch.float64):
    """One with different priors and posteriors for different images."""
    torch.manual_seed(1)
    found = PairedGenerator(1, 3, width=4).to(dtype)
    for encoder in (found.prior, found.posterior):
        torch.nn.init.normal_(encoder.heads[1].weight, std=0.3)
    return found


def kernel():
    found = network(torch.float32)
    found.radius.fill_(1.5)
    return LearnedKernel(found, distribution="ball")


def test_the_loss_by_hand():
    model, x, shifted = network(), X[:3].double(), SHIFTED[:3].double()
    index = INDEX[:3]
    loss, error, divergence = ConditionalVae(0.2)(
        model, torch.stack([x, shifted], 1), torch.zeros(3).long(), key=KEY, index=index
    )
    mean, log_variance = model.prior(2 * x - 1)
    prior = Normal(mean, (4 * (log_variance / 8).tanh()).exp())
    mean, log_variance = model.posterior(torch.cat([2 * x - 1, 2 * shifted - 1], 1))
    posterior = Normal(mean, (4 * (log_variance / 8).tanh()).exp())
    latent = posterior.loc + posterior.scale * rp.random.normal(KEY, index, 1, 3)[0].double()
    made = (model.decoder(model.content(2 * x - 1), latent) + 1) / 2
    expected_divergence = kl_divergence(posterior, prior).sum(1)
    log_density = Normal(made, 0.2).log_prob(shifted).sum((1, 2, 3)) + 64 * math.log(0.2 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(loss, (expected_divergence - log_density).mean())
    torch.testing.assert_close(error, (made - shifted).square().mean().sqrt().detach())
    torch.testing.assert_close(divergence, expected_divergence.mean().detach())
    assert prior.scale.std() > 0.01 and not divergence.requires_grad


def test_it_reconstructs_better_than_the_image_itself():
    found = learn_paired(
        *pairs(256), width=4, style_dim=1, iterations=100, batch_size=16, lr=1e-2, noise=0.05, progress=False
    )
    x, shifted = pairs(64, seed=7)
    delta = found.generator.delta_of(x, shifted).detach()
    reconstructed = found(x, found.project(delta))
    amount = (shifted - x).mean((1, 2, 3))
    assert (reconstructed - shifted).abs().mean() < 0.7 * (x - shifted).abs().mean()
    # the one latent value is the amount, and the ball holds nearly all of the amounts
    assert torch.corrcoef(torch.stack([delta[:, 0], amount]))[0, 1].abs() > 0.6
    assert 0.9 <= (delta.norm(dim=1) <= 1.01).float().mean() <= 1
    moved = (found.draw(x, key=0, index=torch.arange(64), draws=20) - x).mean((2, 3, 4))
    assert moved.min() < 0.25 and moved.max() > 0.4  # the amounts are in [0.1, 0.5]


def test_the_generator_moves_by_the_scale_of_the_prior():
    found = kernel()
    x, delta = images(5, 1), torch.rand(2, 5, 3) / 2
    mean, log_variance = found.generator.prior(2 * x - 1)
    latent = mean + (4 * (log_variance / 8).tanh()).exp() * 1.5 * delta
    content = found.generator.content(2 * x - 1)
    expected = torch.stack([found.generator.decoder(content, each) for each in latent])
    torch.testing.assert_close(found(x, delta), (expected + 1) / 2)
    torch.testing.assert_close(found(images(130, 1), torch.zeros(130, 3))[:5], found(images(130, 1)[:5], delta[0] * 0))


def test_delta_is_uniform_in_the_ball():
    delta = kernel().sample(0, torch.arange(2000), 10).flatten(0, 1)
    norms = delta.norm(dim=1)
    assert norms.max() <= 1
    for radius in (0.3, 0.5, 0.8, 0.9):
        assert (norms <= radius).double().mean().item() == pytest.approx(radius**3, abs=0.012)
    assert delta.mean(0).abs().max() < 0.015
    # along an axis the density of the unit ball in three dimensions is 3/4 (1 - t^2), of variance 1/5
    torch.testing.assert_close(delta.var(0), torch.full((3,), 0.2), rtol=0.04, atol=0)


def test_deltas_outside_the_ball():
    found, x = kernel(), images(5, 1)
    outside = torch.tensor([[0.8, 0.0, 0.8]]).repeat(5, 1)
    with pytest.raises(ValueError, match="expected a norm of at most 1, got 1.13"):
        found(x, outside)
    torch.testing.assert_close(found.project(outside).norm(dim=1), torch.ones(5))
    torch.testing.assert_close(found.project(outside / 4), outside / 4)
    found(x, found.project(outside))
    assert not found.uniform and found.bounds_for(None).tolist() == [[-1.0] * 3, [1.0] * 3]


@pytest.mark.parametrize("objective", [MRT, MAT])
def test_training_with_it(objective):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    loss = objective(kernel(), k=2)(model, images(5, 1), torch.arange(5) % 3, key=KEY, index=INDEX)
    loss.backward()
    assert math.isfinite(loss.item()) and model[1].weight.grad.any()


def test_the_files_and_a_resumed_run(tmp_path, monkeypatch):
    monkeypatch.setattr("robustperf.nuisance.learned.run.LearningRun._draw", lambda *arguments: None)
    whole = learn_paired(X, SHIFTED, out=tmp_path / "whole", snapshots=[1], **QUICK)
    assert LearnedKernel.load(tmp_path / "whole") == whole
    assert type(LearnedKernel.load(tmp_path / "whole" / "snapshots" / "1").generator) is PairedGenerator
    assert whole.law == "ball" and whole.facts["coverage"] == 0.99 and whole.generator.radius > 0
    settings = json.loads((tmp_path / "whole" / "settings.json").read_text())
    assert settings["objective"] == "ConditionalVae(noise=0.1)" and settings["train"].startswith("aligned pairs")

    class Killed(Exception):
        pass

    calls = []

    def classifier(x):  # asked at the start and after iterations 2 and 4
        calls.append(len(x))
        if len(calls) > 3:
            raise Killed
        return torch.stack([x.mean((1, 2, 3))] * 2, 1)

    with pytest.raises(Killed):
        learn_paired(X, SHIFTED, out=tmp_path / "part", classifier=classifier, **QUICK)
    resumed = learn_paired(X, SHIFTED, out=tmp_path / "part", resume=True, **QUICK)
    assert_same(resumed.generator.state_dict(), whole.generator.state_dict())


@pytest.mark.parametrize("arguments, settings, message", [
    ((X, SHIFTED[:60]), {}, "shifted: expected an image for each of x, 64, got 60"),
    ((X, X), {}, "shifted: expected another domain than x"),
    ((X, SHIFTED.repeat(1, 3, 1, 1)), {}, r"shifted: expected images of the shape of x, \[1, 8, 8\], got \[3, 8, 8\]"),
    ((X, SHIFTED + 1), {}, r"shifted: expected pixels within \[0, 1\]"),
    ((X, SHIFTED), {"noise": 0}, "noise: expected a finite number above 0"),
    ((X, SHIFTED), {"coverage": 1.5}, "coverage"),
    ((X, SHIFTED), {"coverage": 0}, "coverage"),
    ((X, SHIFTED), {"style_dim": 0}, "style_dim"),
    ((X, SHIFTED), {"batch_size": 65}, "x: expected at least one batch of 65 images, got 64"),
    ((X, SHIFTED), {"resume": True}, "out: expected a folder"),
])  # fmt: skip
def test_wrong_arguments(arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        learn_paired(*arguments, **QUICK | settings)
