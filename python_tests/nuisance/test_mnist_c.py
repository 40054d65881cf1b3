"""What all corruptions of MNIST-C have in common: draws, delta, gradients and errors."""

import math

import pytest
import torch

import robustperf as rp
from python_tests.support.digit_images import INDEX, KEY, images
from robustperf.expression import build_sum
from robustperf.names import CORRUPTIONS
from robustperf.nuisance import KERNELS, Brightness, Compose, MnistC, mnist_c
from robustperf.nuisance.corruptions.mnist_c import _CORRUPTIONS
from robustperf.training import MAT, MRT

CONSTANT = {"identity", "scale", "brightness", "stripe", "canny_edges"}


def test_each_name_has_a_corruption():
    assert tuple(_CORRUPTIONS) == CORRUPTIONS


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_draw_depends_on_key_id_and_draw_index_only(name, dtype, channels, monkeypatch):
    kernel, x = mnist_c(name), images(channels=channels).to(dtype)
    full = kernel.draw(x, key=KEY, index=INDEX, draws=3)
    assert full.shape == (3, *x.shape) and full.dtype == dtype and full.is_contiguous()
    assert full.min() >= 0 and full.max() <= 1
    assert torch.equal(full, kernel(x, kernel.sample(KEY, INDEX, 3, shape=x.shape[1:])))
    order = torch.tensor([3, 1, 4, 0, 2])
    monkeypatch.setattr("robustperf.nuisance.corruptions.mnist_c._AT_ONCE", 2 * 65535)
    assert torch.equal(kernel.draw(x[order], key=KEY, index=INDEX[order], draws=3), full[:, order])
    for b, k in ((0, 2), (4, 1)):
        one = kernel.draw(x[b : b + 1], key=KEY, index=INDEX[b : b + 1], draws=torch.tensor([k]))
        assert torch.equal(one[0, 0], full[k, b])
    channels_last = kernel.draw(x.to(memory_format=torch.channels_last), key=KEY, index=INDEX, draws=3)
    assert torch.equal(channels_last, full)
    if name not in CONSTANT:
        assert not torch.equal(full[0], full[1])
        assert not torch.equal(kernel.draw(x, key=KEY + 1, index=INDEX, draws=1)[0], full[0])


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {"shot_noise", "impulse_noise"}))
def test_channels_get_the_same_corruption(name):
    grey = images()
    grey[0, 0, 14, 14] = 1
    colour = torch.cat([grey, grey, grey], 1)
    kernel = mnist_c(name)
    made = kernel.draw(colour, key=KEY, index=INDEX)
    assert torch.equal(made, kernel.draw(grey, key=KEY, index=INDEX).expand_as(made))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_both_dtypes_agree(name):
    x = images().float()
    kernel = mnist_c(name)
    single = kernel.draw(x, key=KEY, index=INDEX, draws=2)
    double = kernel.draw(x.double(), key=KEY, index=INDEX, draws=2)
    differ = (single - double).abs() > 2e-5
    assert differ.double().mean() < (2e-3 if name == "shot_noise" else 1e-9)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_out_empty_batches_and_untouched_inputs(name):
    kernel, x = mnist_c(name), images().float()
    before = x.clone()
    full = kernel.draw(x, key=KEY, index=INDEX, draws=2)
    out = torch.empty(2, 5, 1, 28, 28)
    assert kernel.draw(x, key=KEY, index=INDEX, draws=2, out=out) is out
    assert torch.equal(out, full) and torch.equal(x, before)
    assert kernel.draw(x[:0], key=KEY, index=INDEX[:0], draws=2).shape == (2, 0, 1, 28, 28)
    assert kernel.sample(KEY, INDEX, 2, shape=(1, 28, 28)).shape == (2, 5, kernel.dim_for((1, 28, 28)))
    with pytest.raises(ValueError, match=r"out: expected shape \[2, 5, 1, 28, 28\]"):
        kernel.draw(x, key=KEY, index=INDEX, draws=2, out=out[:1])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_delta_is_uniform(name):
    kernel, shape = mnist_c(name), (1, 28, 28)
    delta = kernel.sample(KEY, torch.arange(300), 1, shape=shape)
    kernel.check_delta(delta, shape)
    assert delta.shape[2] == {
        "shot_noise": 784,
        "impulse_noise": 784,
        "glass_blur": 1352,
        "motion_blur": 1,
        "shear": 1,
        "rotate": 1,
        "translate": 2,
        "fog": 65535,
        "spatter": 784,
        "dotted_line": 2,
        "zigzag": 2,
    }.get(name, 0)
    if delta.numel():
        assert abs(delta.double().mean() - 0.5) < 5 / math.sqrt(12 * delta.numel())
    assert kernel.radius_for(shape).tolist() == [0.5] * delta.shape[2]
    beyond = torch.linspace(-1, 2, delta.shape[2]).expand(3, -1)
    projected = kernel.project(beyond, shape)
    kernel.check_delta(projected, shape)
    assert torch.equal(projected, beyond.clamp(0, 1 - 2**-24))


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - CONSTANT))
def test_the_ends_of_delta(name):
    kernel, x = mnist_c(name), images(2)
    shape = (2, kernel.dim_for((1, 28, 28)))
    nearly = torch.full(shape, 1 - 1e-12, dtype=torch.float64)
    made = [kernel(x, nearly), kernel(x.float(), nearly)]  # one in float32
    for each in (*made, kernel(x, nearly * 0), kernel(x, nearly * 0 + 0.5)):
        assert each.isfinite().all() and each.min() >= 0 and each.max() <= 1
    for wrong in (-0.001, 1.0, math.nan):
        delta = torch.full(shape, 0.3)
        delta[1, -1] = wrong
        with pytest.raises(ValueError, match=r"delta: expected values in \[0, 1\), got"):
            kernel(x, delta)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_gradients_in_x_are_those_of_the_formula(name):
    x, kernel = images(2).clamp(0.05, 0.45), mnist_c(name)
    x[0, 0, 10, 10] = x[1, 0, 9, 9] = 0.48  # a unique maximum
    delta = kernel.sample(KEY, INDEX[:2], 1, shape=(1, 28, 28))[0].double()
    x.requires_grad_()
    made = kernel(x, delta)
    drawn = kernel.draw(x, key=KEY, index=INDEX[:2])[0]
    assert torch.equal(drawn, made)
    if name == "canny_edges":
        assert not made.requires_grad
        return
    direction = torch.randn(made.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((made * direction).sum(), x)
    if name == "shot_noise":
        assert not gradient.any()
        return
    with torch.no_grad():
        toward = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        step = 1e-7
        up, down = kernel(x + step * toward, delta), kernel(x - step * toward, delta)
    slope = ((up - down) * direction).sum() / (2 * step)
    assert (gradient * toward).sum().item() == pytest.approx(slope.item(), rel=1e-4)


def test_fog_has_a_gradient_in_delta_and_the_others_have_none():
    x = images(2)
    for name in set(CORRUPTIONS) - CONSTANT - {"shot_noise", "impulse_noise"}:
        kernel = mnist_c(name)
        delta = kernel.sample(KEY, INDEX[:2], 1, shape=(1, 28, 28))[0].double().requires_grad_()
        made = kernel(x, delta)
        if name != "fog":
            assert not made.requires_grad or not torch.autograd.grad(made.sum(), delta)[0].any()
            continue
        (gradient,) = torch.autograd.grad(made.sum(), delta)
        with torch.no_grad():
            toward = torch.randn(delta.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
            toward *= (delta > 0.01) & (delta < 0.99)
            slope = (kernel(x, delta + 1e-6 * toward) - kernel(x, delta - 1e-6 * toward)).sum() / 2e-6
        assert (gradient * toward).sum().item() == pytest.approx(slope.item(), rel=1e-4)


@pytest.mark.parametrize("name", ["fog", "rotate", "stripe", "canny_edges"])
def test_mrt_with_a_corruption(name):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    x, y = images().float(), torch.tensor([3, 1, 4, 1, 5])
    objective = MRT(mnist_c(name), k=3, selection="sample")
    loss = objective(model, x, y, key=KEY, index=INDEX)
    drawn = mnist_c(name).draw(x, key=KEY, index=INDEX, draws=3)
    with torch.no_grad():

        def losses(images):
            return torch.nn.functional.cross_entropy(model(images), y, reduction="none")

        expected = torch.stack([losses(each) for each in drawn]).amax(0).mean() + losses(x).mean()
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5) and model[1].weight.grad.any()
    if name != "fog":
        with pytest.raises(ValueError, match="gradient"):
            MAT(mnist_c(name), k=1)(model, x, y, key=KEY, index=INDEX)


def test_a_composition_with_corruptions():
    x = images().float()
    both = Compose([mnist_c("rotate"), Brightness(), mnist_c("spatter")])
    assert both.dim_for((1, 28, 28)) == 1 + 1 + 784
    delta = both.sample(KEY, INDEX, 2, shape=(1, 28, 28))
    assert torch.equal(both.draw(x, key=KEY, index=INDEX, draws=2), both(x, delta))


@pytest.mark.parametrize(
    "name, shape, message",
    [
        ("fog", (1, 257, 28), "x: fog expected images with sides of at least 8 pixels and at most 256, got"),
        ("zigzag", (1, 28, 15), r"x: zigzag expected images with sides of at least 16 pixels, got \[1, 28, 15\]"),
        ("stripe", (1, 7, 28), r"x: stripe expected images with sides of at least 8 pixels, got"),
        ("identity", (0, 28, 28), r"x: identity expected images"),
    ],
)
def test_images_of_a_wrong_shape(name, shape, message):
    x = torch.zeros(2, *shape)
    for call in (
        lambda: mnist_c(name).draw(x, key=KEY, index=INDEX[:2]),
        lambda: mnist_c(name)(x, torch.zeros(2, 1)),
        lambda: mnist_c(name).sample(KEY, INDEX, 1, shape=shape) if min(shape) else mnist_c(name).dim_for(shape),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_bad_input(name):
    kernel, x = mnist_c(name), torch.zeros(2, 1, 28, 28)
    for pixel in (math.nan, 1.5, -0.1):
        wrong = x.clone()
        wrong[1, 0, 3, 4] = pixel
        with pytest.raises(ValueError, match="x: expected|x: .*pixel"):
            kernel.draw(wrong, key=KEY, index=INDEX[:2])
    with pytest.raises(ValueError, match=r"x: expected shape \[B, C, H, W\], got \[2, 28, 28\]"):
        kernel.draw(x[:, 0], key=KEY, index=INDEX[:2])
    with pytest.raises(TypeError, match="x: expected torch.float32 or torch.float64, got torch.uint8"):
        kernel.draw(x.byte(), key=KEY, index=INDEX[:2])
    with pytest.raises(ValueError, match="key: expected an integer"):
        kernel.draw(x, key=-1, index=INDEX[:2])
    with pytest.raises(ValueError, match="index: expected numbers in 0"):
        kernel.draw(x, key=KEY, index=-INDEX[:2] - 1)
    with pytest.raises(ValueError, match=r"delta: expected shape \[2, "):
        kernel(x, torch.zeros(2, 77))


def test_names():
    assert mnist_c is MnistC and rp.nuisance.mnist_c is mnist_c and len(CORRUPTIONS) == 16
    for name in CORRUPTIONS:
        (same,) = build_sum(repr(mnist_c(name)), KERNELS)
        assert isinstance(same, MnistC) and same.name == name
    for wrong in ("snow", "", None, ["fog"], 3):
        with pytest.raises(ValueError, match="name: expected one of identity, shot_noise, .*canny_edges, got"):
            mnist_c(wrong)
    with pytest.raises(ValueError, match="shape: spatter has components of delta for the image's pixels"):
        mnist_c("spatter").sample(KEY, INDEX, 1)
    assert mnist_c("translate").dim == 2
