"""What all kernels that are programs have in common: draws, gradients, images, names."""

import math
import pickle

import pytest
import torch

from python_tests.support.kernels import gradient_of_draw
from python_tests.support.program_kernels import (
    EPS,
    INDEX,
    KNOWN,
    WIDE,
    every_kernel,
    images,
)
from robustperf.expression import build_sum
from robustperf.nuisance import (
    KERNELS,
    Affine,
    BackgroundColour,
    Blur,
    Brightness,
    Fog,
    GaussianNoise,
    ImpulseNoise,
    L2Ball,
    LinfBall,
    ProgramKernel,
    Rotation,
    Saturation,
    Scale,
    Shear,
    ShotNoise,
    Translation,
)


def test_every_kernel_has_a_name():
    assert len(KNOWN) == 19 and set(KERNELS) - set(KNOWN) == {"augmix", "l1_ball", "mnist_c"}
    for name, make in KNOWN.items():
        kernel = make(EPS[name]) if name in EPS else make()
        assert isinstance(kernel, ProgramKernel) and kernel.program.steps[0].name == name


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_draw_is_the_call_with_the_sample(kernel, channels, dtype):
    x = images(channels, dtype=dtype)
    kept = x.clone()
    delta = kernel.sample(2**63 + 5, INDEX, 3, shape=x.shape[1:])
    drawn = kernel.draw(x, key=2**63 + 5, index=INDEX, draws=3)
    assert torch.equal(drawn, kernel(x, delta))
    assert drawn.dtype == dtype and drawn.shape == (3, 6, *kernel.shape_after(tuple(x.shape[1:])))
    assert drawn.isfinite().all() and torch.equal(x, kept)
    if kernel.program.steps[0].name not in ("l2_ball", "linf_ball") or kernel.program.steps[0].settings[0]:
        assert (drawn >= 0).all() and (drawn <= 1).all()
    for k in range(3):
        assert torch.equal(kernel(x, delta[k]), drawn[k])
    for layout in (x.to(memory_format=torch.channels_last), torch.cat([x, x], 3)[..., : WIDE[1]]):
        assert torch.equal(kernel.draw(layout, key=2**63 + 5, index=INDEX, draws=3), drawn)


@every_kernel
def test_a_draw_depends_on_key_id_and_draw_index_only(kernel, channels):
    x = images(channels)
    full = kernel.draw(x, key=1, index=INDEX, draws=4)
    order = torch.tensor([3, 5, 0, 2, 1, 4])
    assert torch.equal(kernel.draw(x[order], key=1, index=INDEX[order], draws=4), full[:, order])
    split = [kernel.draw(x[part], key=1, index=INDEX[part], draws=4) for part in (slice(0, 1), slice(1, 6))]
    assert torch.equal(torch.cat(split, 1), full)
    chunks = [kernel.draw(x, key=1, index=INDEX, draws=torch.tensor(chunk)) for chunk in ([0], [1, 2], [3])]
    assert torch.equal(torch.cat(chunks), full)
    assert torch.equal(kernel.draw(x, key=1, index=INDEX, draws=torch.tensor([3, 1])), full[[3, 1]])
    samples = kernel.sample(1, INDEX, 4, shape=x.shape[1:])
    some = kernel.sample(1, INDEX[order], torch.tensor([2, 0]), shape=x.shape[1:])
    assert torch.equal(some, samples[[2, 0]][:, order])
    assert not torch.equal(kernel.sample(2, INDEX, 4, shape=x.shape[1:]), samples)


@every_kernel
def test_a_draw_may_be_written_into_a_tensor(kernel, channels):
    x = images(channels)
    drawn = kernel.draw(x, key=1, index=INDEX, draws=3)
    out = torch.full_like(drawn, 9)
    for given in (x, x.clone().requires_grad_()):
        assert kernel.draw(given, key=1, index=INDEX, draws=3, out=out) is out
        assert torch.equal(out, drawn) and not out.requires_grad
        out.fill_(9)


@every_kernel
def test_gradients_flow_through_a_draw(kernel, channels):
    x = images(channels)
    delta = kernel.sample(1, INDEX, 2, shape=x.shape[1:])
    gradient, _ = gradient_of_draw(kernel, x, delta, INDEX)
    assert gradient.isfinite().all()
    assert gradient.any() != (kernel.program.steps[0].name == "shot_noise")  # its counts are piecewise constant
    with torch.no_grad():
        assert torch.equal(kernel.draw(x.requires_grad_(), key=1, index=INDEX, draws=2), kernel(x, delta))


@every_kernel
def test_every_backend(kernel, channels):
    x = images(channels)
    drawn, defined = (kernel.draw(x, key=1, index=INDEX, draws=2, backend=name) for name in (None, "reference"))
    torch.testing.assert_close(drawn, defined, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="backend: expected one of"):
        kernel.draw(x, key=1, index=INDEX, backend="abacus")


@every_kernel
def test_pixels_outside_0_1_are_rejected(kernel, channels):
    x = images(channels)
    delta = kernel.sample(0, INDEX, 1, shape=x.shape[1:])
    for value in (-0.01, 1.01, math.nan, math.inf):
        wrong = x.clone()
        wrong[5, -1, 8, 10] = value
        for call in (
            lambda wrong=wrong: kernel(wrong, delta),
            lambda wrong=wrong: kernel.draw(wrong, key=0, index=INDEX),
        ):
            with pytest.raises(ValueError, match=r"x: expected .*pixels"):
                call()


@every_kernel
def test_a_kernel_can_be_pickled(kernel, channels):
    x = images(channels)
    arrived = pickle.loads(pickle.dumps(kernel))
    assert torch.equal(arrived.draw(x, key=0, index=INDEX), kernel.draw(x, key=0, index=INDEX))
    assert repr(arrived) == repr(kernel)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("kernel", [Brightness(), Rotation(), BackgroundColour()], ids=repr)
def test_a_kernel_in_a_compiled_function(kernel):
    x = images(1)
    delta = kernel.sample(0, INDEX, 2)

    def called_and_drawn(x, delta):
        return kernel(x, delta), kernel.draw(x, key=0, index=INDEX, draws=2)

    torch.compiler.reset()
    called, drawn = torch.compile(called_and_drawn, fullgraph=True, backend="aot_eager")(x, delta)
    assert torch.equal(called, kernel(x, delta)) and torch.equal(drawn, called)


@every_kernel
def test_an_empty_batch(kernel, channels):
    x = images(channels)[:0]
    assert kernel.draw(x, key=0, index=INDEX[:0], draws=2).shape == (2, 0, *kernel.shape_after(tuple(x.shape[1:])))


@pytest.mark.parametrize(
    "kernel",
    [
        Brightness(),
        KERNELS["gamma"](),
        Rotation(),
        Blur(),
        Fog(),
        GaussianNoise(),
        ImpulseNoise(),
        ShotNoise(),
        L2Ball(1.0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 6, 7), (5, 7, 6)])
def test_any_number_of_channels(kernel, shape):
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    drawn = kernel.draw(x, key=0, index=torch.arange(2), draws=2)
    assert drawn.shape == (2, 2, *shape) and not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("name, shape, message", [
    ("hue", (1, 8, 8), "x: hue expected RGB images, 3 channels, got [1, 8, 8]"),
    ("saturation", (4, 8, 8), "x: saturation expected RGB images, 3 channels, got [4, 8, 8]"),
    ("decolourise", (1, 8, 8), "x: decolourise expected RGB images, 3 channels, got [1, 8, 8]"),
    ("contrast", (2, 8, 8), "x: contrast expected grey or RGB images, 1 or 3 channels, got [2, 8, 8]"),
    ("background_colour", (3, 8, 8), "x: background_colour expected grey images, 1 channel, got [3, 8, 8]"),
    ("blur", (1, 5, 40), "x: blur expected images larger than the blur's radius 5, got [1, 5, 40]"),
    ("rotation", (1, 0, 5), "x: expected images with pixels, got shape [2, 1, 0, 5]"),
])  # fmt: skip
def test_images_of_a_wrong_shape(name, shape, message):
    x, kernel = torch.zeros(2, *shape), KERNELS[name]()
    for call in (lambda: kernel(x, torch.zeros(2, kernel.dim)), lambda: kernel.draw(x, key=0, index=torch.arange(2))):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == message


@pytest.mark.parametrize("kernel, text", [
    (Rotation(30), "rotation((-30, 30))"),
    (Rotation((-5, 1 / 3), "border"), "rotation((-5, 0.3333333333333333), outside='border')"),
    (Brightness((-0.1, 0.4)), "brightness((-0.1, 0.4))"),
    (Brightness(3), "brightness((-1, 3))"),
    (Saturation(), "saturation((-0.4, 0.4))"),
    (Blur(2), "blur((0, 2))"),
    (Fog(), "fog((0, 0.8))"),
    (Scale(0.5), "scale((-0.5, 0.5))"),
    (Shear(), "shear((-20, 20), None)"),
    (Shear(None, 5), "shear(None, (-5, 5))"),
    (Translation(0.25, (0, 0.5)), "translation((-0.25, 0.25), (0, 0.5))"),
    (Affine(), "affine((-30, 30), (-0.1, 0.1), (-0.2, 0.2), (-20, 20))"),
    (Affine(None, 0.1, None, 9, "border"), "affine(None, (-0.1, 0.1), None, (-9, 9), outside='border')"),
    (GaussianNoise(0.05), "gaussian_noise(0.05)"),
    (ImpulseNoise(1), "impulse_noise(1)"),
    (ShotNoise(), "shot_noise(25)"),
    (L2Ball(2), "l2_ball(2)"),
    (L2Ball(2, clamp=True), "l2_ball(2, clamp=True)"),
    (LinfBall(0.5, clamp=True), "linf_ball(0.5, clamp=True)"),
    (BackgroundColour(), "background_colour((0, 0, 0), (1, 1, 1))"),
    (BackgroundColour.blue_to_red(), "background_colour((0.5, 0, 0), (1, 0.3, 0.3), 'corner')"),
    (BackgroundColour(source=(0, 0, 1)), "background_colour((0, 0, 0), (1, 1, 1), (0, 0, 1))"),
])  # fmt: skip
def test_repr(kernel, text):
    assert repr(kernel) == text


@every_kernel
def test_repr_is_valid_on_the_command_line(kernel, channels):
    (same,) = build_sum(repr(kernel), KERNELS)
    assert same.program == kernel.program
