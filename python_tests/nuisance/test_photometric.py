"""Colour and light: each kernel on colours whose result is known by hand."""

import math

import pytest
import torch

from robustperf import data
from robustperf.nuisance import (
    BackgroundColour,
    Blur,
    Brightness,
    Contrast,
    Decolourise,
    Fog,
    Gamma,
    Hue,
    Saturation,
)

WEIGHTS = torch.tensor([0.2989, 0.587, 0.114])[:, None, None]


def image(*pixels):
    """One image [1, C, 1, W] of the pixels, each a number or a colour."""
    return torch.tensor(pixels, dtype=torch.float32).view(1, len(pixels), 1, -1).transpose(1, 3).contiguous()


def under(kernel, x, *delta):
    return kernel(x, torch.tensor(delta).expand(len(x), -1))


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def close(actual, expected):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kernel, argument", [
    (Brightness, "amount"), (Contrast, "amount"), (Saturation, "amount"), (Decolourise, "amount"), (Hue, "turns"),
    (Gamma, "amount"), (Blur, "sigma"), (Fog, "strength"),
])  # fmt: skip
@pytest.mark.parametrize("wrong, error", [
    (0, ValueError), (-0.1, ValueError), (math.nan, ValueError), (math.inf, ValueError), ((0.2, 0.1), ValueError),
    ((0.1, 0.1), ValueError), ((0.0, math.inf), ValueError), ((math.nan, 0.1), ValueError), ("0.1", TypeError),
    ("ab", TypeError), (None, TypeError), (True, TypeError), ((0.1,), TypeError), ((0, 0.1, 0.2), TypeError),
    ({}, TypeError),
])  # fmt: skip
def test_a_wrong_range(kernel, argument, wrong, error):
    with pytest.raises(error, match=f"{argument}: expected a number.*got "):
        kernel(wrong)


@pytest.mark.parametrize("kernel, wrong, limits", [
    (Brightness, (-1.1, 0), r"\[-1, inf\]"), (Contrast, (-2, 2), r"\[-1, inf\]"),
    (Saturation, (-1.01, 0.1), r"\[-1, inf\]"), (Gamma, (-2, 0), r"\[-1, inf\]"), (Hue, 0.6, r"\[-0.5, 0.5\]"),
    (Hue, (-0.1, 0.51), r"\[-0.5, 0.5\]"), (Decolourise, 1.1, r"\[0, 1\]"), (Decolourise, (-0.1, 1), r"\[0, 1\]"),
    (Fog, (-0.1, 1), r"\[0, inf\]"), (Blur, (-0.1, 1), r"\[0, 21"), (Blur, 22, r"\[0, 21"),
])  # fmt: skip
def test_a_range_beyond_the_limits(kernel, wrong, limits):
    with pytest.raises(ValueError, match=f"expected bounds within {limits}"):
        kernel(wrong)


def test_a_number_is_limited_to_the_valid_range():
    for kernel, lowest in ((Brightness(2), -1), (Gamma(3.0), -1), (Decolourise(0.5), 0), (Blur(2), 0), (Fog(1), 0)):
        delta = kernel.sample(0, torch.arange(2000), 1)[..., 0]
        assert lowest <= delta.min() < lowest + 0.01


def test_brightness():
    close(under(Brightness(), image(0, 0.5, 0.8, 1), 0.25), image(0, 0.625, 1, 1))
    close(under(Brightness(1), image(0.2, 1), -1.0), image(0, 0))


def test_contrast_is_about_each_images_own_grey_mean():
    x = image(0.2, 0.4, 0.6, 0.4)
    close(under(Contrast(), x, 0.4), image(0.12, 0.4, 0.68, 0.4))
    close(under(Contrast(1), x, -1.0), image(0.4, 0.4, 0.4, 0.4))
    rgb = noise(2, 3, 6, 7)
    mean = (WEIGHTS * rgb).sum(1).mean((1, 2))
    close(under(Contrast(1), rgb, -1.0), mean[:, None, None, None].expand_as(rgb))
    close(under(Contrast(), rgb, 0.3)[0], under(Contrast(), rgb[:1], 0.3)[0])


def test_saturation_and_decolourise_are_about_the_grey_image():
    rgb = noise(2, 3, 6, 7)
    grey = (WEIGHTS * rgb).sum(1, keepdim=True).expand_as(rgb)
    close(under(Saturation(1), rgb, -1.0), grey)
    close(under(Saturation(), rgb, 0.4), (1.4 * rgb - 0.4 * grey).clamp(0, 1))
    close(under(Decolourise(), rgb, 1.0), grey)
    close(under(Decolourise(), rgb, 0.25), 0.75 * rgb + 0.25 * grey)


def test_hue_is_counted_in_turns():
    red, yellow, green, blue = (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1)
    hue = Hue(0.5)
    close(under(hue, image(red, green, blue), 1 / 3), image(green, blue, red))
    close(under(hue, image(red, yellow, blue), -1 / 3), image(blue, (1, 0, 1), green))
    close(under(hue, image(red), 1 / 6), image(yellow))
    close(under(hue, image((0.8, 0.2, 0.2)), 0.5), image((0.2, 0.8, 0.8)))
    close(under(hue, image((0.3, 0.3, 0.3), (0, 0, 0), (1, 1, 1)), 0.2), image((0.3, 0.3, 0.3), (0, 0, 0), (1, 1, 1)))


def test_gamma():
    close(under(Gamma(1), image(0, 0.25, 1), 1.0), image(0, 0.0625, 1))
    close(under(Gamma(0.5), image(0, 0.25, 1), -0.5), image(0, 0.5, 1))


def test_blur_spreads_a_point_as_a_gaussian():
    x = torch.zeros(1, 1, 15, 15)
    x[..., 7, 7] = 1
    blurred = under(Blur(1.5), x, 1.2)[0, 0]
    bell = torch.exp(-(torch.arange(-5, 6) ** 2) / (2 * 1.2**2))
    bell /= bell.sum()
    close(blurred[2:13, 2:13], bell[:, None] * bell)
    assert blurred.sum() == pytest.approx(1, abs=1e-6)
    close(under(Blur(), torch.full((1, 3, 8, 9), 0.7), 1.5), torch.full((1, 3, 8, 9), 0.7))


def test_blur_needs_images_larger_than_its_radius():
    assert under(Blur(1.5), noise(1, 1, 6, 6), 1.0).shape == (1, 1, 6, 6)
    with pytest.raises(ValueError, match="x: blur expected images larger than the blur's radius 5"):
        under(Blur(1.5), noise(1, 1, 5, 6), 1.0)
    assert under(Blur(0.3), noise(1, 1, 2, 2), 0.3).shape == (1, 1, 2, 2)


def test_fog_blends_towards_the_brightest_value():
    x = noise(2, 3, 16, 16)
    kernel = Fog(0.8)
    delta = kernel.sample(0, torch.arange(2), 1)[0]
    most = x.amax((1, 2, 3), keepdim=True)
    delta[:, 1:] = 1  # a field that is 1 all over
    strength = delta[:, :1, None, None]
    close(kernel(x, delta), (x + strength) * most / (most + strength))
    delta[:, 1:] = 0
    close(kernel(x, delta), x * most / (most + strength))
    close(kernel(torch.zeros(2, 3, 16, 16), delta), torch.zeros(2, 3, 16, 16))


def test_fog_is_smooth_and_the_same_in_all_channels():
    delta = Fog().sample(0, torch.arange(4), 1)[0]
    black = torch.zeros(4, 3, 33, 33)
    black[..., 0, 0] = 1
    fog = Fog()(black, delta)[..., 1:, 1:]
    assert torch.equal(fog[:, 0], fog[:, 1]) and torch.equal(fog[:, 0], fog[:, 2])
    strength = delta[:, :1, None, None]
    assert (fog.diff(dim=3).abs() < 0.5 * strength).all() and fog.std((2, 3)).min() > 0


# background colours


@pytest.fixture(scope="module")
def digits():
    """Grey digits; their first pixel is black."""
    x = data.load("digits").x[:40]
    assert (x[..., 0, 0] == 0).all() and (x == 1).any()
    return x


def on(colours, weight):
    """Digits [B, 1, H, W] in white on backgrounds [B, 3]."""
    return weight + (1 - weight) * colours[:, :, None, None]


def test_a_grey_digit_on_a_colour(digits):
    kernel = BackgroundColour()
    assert kernel.dim == 3 and kernel.shape_after((1, 8, 8)) == (3, 8, 8)
    colours = kernel.sample(0, torch.arange(40), 2)
    close(kernel(digits, colours), torch.stack([on(each, digits) for each in colours]))


@pytest.mark.parametrize(
    "kernel", [BackgroundColour.blue_to_red(), BackgroundColour.any_to_any()], ids=["blue to red", "any to any"]
)
def test_a_background_becomes_another(digits, kernel):
    generator = torch.Generator().manual_seed(0)
    before = torch.rand(40, 3, generator=generator) * torch.tensor([0.3, 0.3, 0.5]) + torch.tensor([0, 0, 0.5])
    coloured = on(before, digits)
    colours = kernel.sample(0, torch.arange(40), 2)
    out = kernel(coloured, colours)
    assert out.shape == (2, 40, 3, 8, 8)
    torch.testing.assert_close(out[..., 0, 0], colours, atol=1e-6, rtol=0)  # the background is delta
    white = (digits == 1).expand(2, 40, 3, 8, 8)
    torch.testing.assert_close(out[white], torch.ones(int(white.sum())), atol=1e-6, rtol=0)  # white stays white
    torch.testing.assert_close(out, torch.stack([on(each, digits) for each in colours]), atol=2e-6, rtol=0)


def test_blue_becomes_reds():
    colours = BackgroundColour.blue_to_red().sample(0, torch.arange(1000), 1)[0]
    assert (colours[:, 0] >= 0.5).all() and (colours[:, 1:] <= 0.3).all()


def test_a_given_background_colour(digits):
    blue = torch.tensor([[0.0, 0.0, 1.0]])
    given, found = BackgroundColour(source=(0, 0, 1)), BackgroundColour(source="corner")
    coloured, colours = on(blue, digits), given.sample(0, torch.arange(40), 2)
    close(given(coloured, colours), found(coloured, colours))
    covered = coloured.clone()
    covered[..., 0, 0] = 1  # a digit over the corner
    close(given(covered, colours)[..., 1:, 1:], given(coloured, colours)[..., 1:, 1:])


def test_channels_may_be_fixed(digits):
    kernel = BackgroundColour((1, 0, 0), (1, 0.5, 0))
    colours = kernel.sample(0, torch.arange(40), 2)
    assert (colours[..., 0] == 1).all() and (colours[..., 2] == 0).all() and colours[..., 1].std() > 0.1
    drawn = kernel.draw(digits, key=0, index=torch.arange(40), draws=2)
    assert (drawn[:, :, 0] == 1).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (((0, 0), (1, 1, 1)), r"low: expected three numbers in \[0, 1\], got \(0, 0\)"),
        ((0, 1), r"low: expected three numbers in \[0, 1\], got 0"),
        (((0, 0, 0), (1, 1, 2)), r"high: expected three numbers in \[0, 1\], got \(1, 1, 2\)"),
        (((0, 0, 0), (1, 1, math.nan)), "high: expected three numbers"),
        (((0, 0, 0), "red"), "high: expected three numbers"),
        (((0.5, 0, 0), (0.4, 1, 1)), "low, high: expected low <= high, not all equal"),
        (((0.5, 0, 0), (0.5, 0, 0)), "low, high: expected low <= high, not all equal"),
        (((0, 0, 0), (1, 1, 1), "blue"), r"source: expected 'grey', 'corner' or a colour \(r, g, b\), got 'blue'"),
        (((0, 0, 0), (1, 1, 1), (1, 1, 1)), "source: expected a colour other than white"),
        (((0, 0, 0), (1, 1, 1), (0, 0)), "source: expected three numbers"),
        (((0, 0, 0), (1, 1, 1), None), "source: expected"),
    ],
)
def test_errors_of_background_colour(arguments, message):
    with pytest.raises(ValueError, match=message):
        BackgroundColour(*arguments)


def test_a_background_needs_the_channels_of_its_source(digits):
    with pytest.raises(ValueError, match="expected RGB images, 3 channels"):
        BackgroundColour.any_to_any()(digits, torch.rand(40, 3))
    with pytest.raises(ValueError, match="expected grey images, 1 channel"):
        BackgroundColour()(digits.expand(-1, 3, -1, -1), torch.rand(40, 3))
