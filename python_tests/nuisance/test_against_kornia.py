"""The conventions of torchvision's colour transforms and warps, as kornia has them too.

Where kornia means something else by a name it is not asked: its `adjust_brightness` adds, its `adjust_contrast` leaves
out the mean, its `adjust_saturation` works in HSV, and its `shear` leaves the corner in its place instead of the
centre. Its grey weights are .299, .587, .114 and ours torchvision's .2989, .587, .114; they agree on images without
red.
"""

import math

import pytest
import torch

from robustperf.nuisance import (
    Affine,
    Blur,
    Brightness,
    Contrast,
    Decolourise,
    Gamma,
    Hue,
    Rotation,
    Saturation,
    Scale,
    Shear,
    Translation,
)

kornia = pytest.importorskip("kornia")

INDEX = torch.arange(8)


def images(channels=3, height=17, width=12):
    return torch.rand(8, channels, height, width, generator=torch.Generator().manual_seed(0))


def without_red(x):
    return x * torch.tensor([0.0, 1.0, 1.0])[:, None, None] if x.shape[1] == 3 else x


def compare(kernel, peer, x, atol=1e-5):
    """`kernel` beside `peer(x, delta)`, with a delta of each image's own."""
    delta = kernel.sample(0, INDEX, 1, shape=x.shape[1:])[0]
    ours, theirs = kernel(x, delta), peer(x, delta)
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)
    assert (ours - x).abs().max() > 0.05


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness(channels):
    compare(Brightness(), lambda x, d: kornia.enhance.adjust_brightness_accumulative(x, 1 + d[:, 0]), images(channels))


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast(channels):
    def peer(x, d):
        return kornia.enhance.adjust_contrast_with_mean_subtraction(x, 1 + d[:, 0])

    compare(Contrast(), peer, without_red(images(channels)))
    compare(Contrast(), peer, images(channels), atol=0.4 * 1.1e-4)  # the weights of red differ by 1e-4


def test_saturation():
    def peer(x, d):
        return kornia.enhance.adjust_saturation_with_gray_subtraction(x, 1 + d[:, 0])

    compare(Saturation(), peer, without_red(images()))
    compare(Saturation(), peer, images(), atol=0.4 * 1.1e-4)


def test_decolourise():
    def peer(x, d):
        return kornia.enhance.adjust_saturation_with_gray_subtraction(x, 1 - d[:, 0])

    compare(Decolourise(), peer, without_red(images()))


def test_hue():
    # in radians there, in turns here
    compare(Hue(0.5), lambda x, d: kornia.enhance.adjust_hue(x, 2 * math.pi * d[:, 0]), images(), atol=2e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_gamma(channels):
    compare(Gamma(), lambda x, d: kornia.enhance.adjust_gamma(x, 1 + d[:, 0]), images(channels))


@pytest.mark.parametrize("sigma", [0.4, 1.5, 2.5])
def test_blur(sigma):
    kernel, size = Blur((0.1, sigma)), 2 * math.ceil(3 * sigma) + 1

    def peer(x, d):
        return kornia.filters.gaussian_blur2d(x, (size, size), d.expand(-1, 2), border_type="reflect")

    compare(kernel, peer, images())


@pytest.mark.parametrize("outside", ["zeros", "border"])
def test_rotation(outside):
    compare(Rotation(60, outside), lambda x, d: kornia.geometry.rotate(x, d[:, 0], padding_mode=outside), images())


@pytest.mark.parametrize("outside", ["zeros", "border"])
def test_translation(outside):
    def peer(x, d):  # in pixels there
        return kornia.geometry.translate(x, d * torch.tensor([12.0, 17.0]), padding_mode=outside)

    compare(Translation(0.4, 0.4, outside), peer, images())


@pytest.mark.parametrize("outside", ["zeros", "border"])
def test_scale(outside):
    compare(Scale(0.5, outside), lambda x, d: kornia.geometry.scale(x, 1 + d[:, 0], padding_mode=outside), images())


def about_the_centre(matrices, x):
    """[N, 2, 3] for `warp_affine`: where a pixel goes, by maps [N, 2, 2] that leave the centre in its place."""
    centre = torch.tensor([(x.shape[3] - 1) / 2, (x.shape[2] - 1) / 2])
    return torch.cat([matrices, (centre - matrices @ centre)[..., None]], 2)


def shears(d):
    """x by y, then y by x."""
    along_x, along_y = (d * math.pi / 180).tan().unbind(1)
    one, none = torch.ones_like(along_x), torch.zeros_like(along_x)
    first = torch.stack([one, along_x, none, one], 1).view(-1, 2, 2)
    then = torch.stack([one, none, along_y, one], 1).view(-1, 2, 2)
    return then @ first


@pytest.mark.parametrize("outside", ["zeros", "border"])
def test_shear(outside):
    def peer(x, d):
        matrices = about_the_centre(shears(d), x)
        return kornia.geometry.warp_affine(x, matrices, x.shape[2:], padding_mode=outside)

    compare(Shear(30, 30, outside), peer, images())


@pytest.mark.parametrize("outside", ["zeros", "border"])
def test_affine(outside):
    def peer(x, d):
        angle = d[:, 0] * math.pi / 180  # counter-clockwise where y points down
        turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], 1).view(-1, 2, 2)
        matrices = about_the_centre(turn @ shears(d[:, 4:]) * (1 + d[:, 3])[:, None, None], x)
        matrices[..., 2] += d[:, 1:3] * torch.tensor([12.0, 17.0])
        return kornia.geometry.warp_affine(x, matrices, x.shape[2:], padding_mode=outside)

    compare(Affine(outside=outside), peer, images(), atol=2e-5)
