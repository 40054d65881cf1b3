"""Noise: its distributions, and its effect for a given delta."""

import math

import pytest
import torch
from scipy import stats

from robustperf.nuisance import GaussianNoise, ImpulseNoise, ShotNoise

INDEX = torch.arange(50)
SHAPE = (1, 10, 10)
GREY = torch.full((50, *SHAPE), 0.5)


def test_gaussian_noise():
    kernel = GaussianNoise(0.05)
    delta = kernel.sample(0, INDEX, 4, shape=SHAPE)
    assert delta.shape == (4, 50, 100)
    # 20,000 normals: 5 standard deviations
    assert abs(delta.mean()) < 5 * 0.05 / math.sqrt(20000)
    assert abs(delta.std() - 0.05) < 5 * 0.05 / math.sqrt(40000)
    assert (delta.abs() > 2 * 0.05).double().mean() == pytest.approx(0.0455, abs=0.008)
    torch.testing.assert_close(kernel(GREY, delta), (GREY + delta.unflatten(2, SHAPE)).clamp(0, 1), atol=1e-6, rtol=0)
    drawn = GaussianNoise(0.6).draw(GREY, key=0, index=INDEX)
    assert drawn.min() == 0 and drawn.max() == 1  # clamped


def test_every_value_has_independent_noise():
    delta = GaussianNoise(1.0).sample(0, INDEX, 40, shape=SHAPE).double().flatten(0, 1)
    correlation = torch.corrcoef(delta.T)
    correlation.fill_diagonal_(0)
    assert correlation.abs().max() < 6 / math.sqrt(2000)


def test_impulse_noise_is_salt_and_pepper():
    kernel = ImpulseNoise(0.3)
    drawn = kernel.draw(GREY, key=0, index=INDEX, draws=4)
    assert set(drawn.unique().tolist()) == {0.0, 0.5, 1.0}
    for value in (0, 1):
        assert (drawn == value).double().mean() == pytest.approx(0.15, abs=5 * math.sqrt(0.15 * 0.85 / 20000))
    delta = torch.full((50, 100), 0.5)
    delta[:, :4] = torch.tensor([0.149, 0.151, 0.849, 0.851])
    assert kernel(GREY, delta)[0, 0, 0, :5].tolist() == [0.0, 0.5, 0.5, 1.0, 0.5]
    assert set(ImpulseNoise(1).draw(GREY, key=0, index=INDEX).unique().tolist()) == {0.0, 1.0}


def test_shot_noise_is_the_poisson_quantile():
    kernel = ShotNoise(25)
    x = torch.linspace(0, 1, 100).view(1, *SHAPE).expand(50, -1, -1, -1)
    delta = kernel.sample(0, INDEX, 2, shape=SHAPE)
    counts = torch.from_numpy(stats.poisson.ppf(delta.double().numpy(), 25 * x.double().flatten(1).numpy()))
    expected = (counts.clamp_min(0) / 25).clamp(0, 1).float()
    ours = kernel(x, delta).flatten(2)
    # a quantile at the very edge of a step may fall on either side
    assert ((ours - expected).abs() < 1e-6).double().mean() > 0.999
    assert (ours[..., 0] == 0).all()  # black is unchanged


def test_fewer_photons_are_noisier():
    few, many = (ShotNoise(rate).draw(GREY, key=0, index=INDEX, draws=4) for rate in (5, 500))
    assert few.std() > 3 * many.std() and many.mean() == pytest.approx(0.5, abs=0.01)


def test_a_count_has_no_gradient():
    x = GREY.clone().requires_grad_()
    delta = ShotNoise().sample(0, INDEX, 1, shape=SHAPE).requires_grad_()
    gradients = torch.autograd.grad(ShotNoise()(x, delta).sum(), (x, delta))
    assert all(not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("kernel, argument", [(GaussianNoise, "std"), (ImpulseNoise, "fraction"), (ShotNoise, "rate")])
@pytest.mark.parametrize("wrong", [0, -0.1, math.nan, math.inf, "0.1", None, True, (0, 1)])
def test_errors(kernel, argument, wrong):
    with pytest.raises(
        (TypeError, ValueError), match=f"{argument}: expected a (finite )?number (above 0|in .0, [0-9]+.), got "
    ):
        kernel(wrong)


@pytest.mark.parametrize(
    "kernel, wrong, message",
    [
        (ImpulseNoise, 1.5, r"fraction: expected a number in \(0, 1\], got 1.5"),
        (ShotNoise, 501, r"rate: expected a number in \(0, 500\], got 501"),
    ],
)
def test_limits(kernel, wrong, message):
    with pytest.raises(ValueError, match=message):
        kernel(wrong)
