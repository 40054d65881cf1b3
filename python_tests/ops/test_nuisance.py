"""Nuisance programs on every backend against numpy in float64, image by image and step by step; their gradients against
finite differences."""

import colorsys
import math
import os
from functools import cache

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import gaussian_filter1d
from scipy.stats import poisson

from robustperf.ops import nuisance
from robustperf.ops.program import (
    AFFINE_PARAMETERS,
    FOG_NODES,
    LATTICES,
    MAX_RADIUS,
    MAX_STEPS,
    Distribution,
    Outside,
    Program,
    Source,
    Step,
    Transform,
)

OP = "nuisance"
T = Transform
IMAGE_WIDE = (T.ADD, T.IMPULSE, T.SHOT)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def step(transform, lower, upper, *settings):
    special = {T.FOG: Distribution.FOG} | dict.fromkeys(IMAGE_WIDE, Distribution.EVERYWHERE)
    return Step(transform, special.get(transform, Distribution.BOX), lower, upper, settings, transform.name.lower())


def affine(mask, outside, **limits):
    """The affine parameters of `mask`, each between its limits."""
    limits = {"rotation": (-180, 180), "translation_x": (-0.4, 0.4), "translation_y": (-0.4, 0.4), "scale": (-0.4, 1.0),
              "shear_x": (-40, 40), "shear_y": (-40, 40)} | limits  # fmt: skip
    lower, upper = zip(*(limits[part] for bit, part in enumerate(AFFINE_PARAMETERS) if mask >> bit & 1), strict=True)
    return step(T.AFFINE, lower, upper, mask, outside)


# Bounds so wide that the clamps are at work.
STEPS = {
    "brightness": step(T.BRIGHTNESS, (-0.8,), (0.8,)),
    "contrast": step(T.CONTRAST, (-0.8,), (0.8,)),
    "saturation": step(T.SATURATION, (-0.8,), (0.8,), 1),
    "decolourise": step(T.SATURATION, (0,), (1,), -1),
    "hue": step(T.HUE, (-0.5,), (0.5,)),
    "gamma": step(T.GAMMA, (-0.9,), (1.5,)),
    "background of grey": step(T.BACKGROUND, (0,) * 3, (1,) * 3, Source.GREY),
    "background of a corner": step(T.BACKGROUND, (0,) * 3, (1,) * 3, Source.CORNER),
    "background of a colour": step(T.BACKGROUND, (0,) * 3, (1,) * 3, Source.COLOUR, 0.1, 0.6, 0.2),
    **{part: affine(1 << bit, Outside.ZEROS) for bit, part in enumerate(AFFINE_PARAMETERS)},
    "affine in zeros": affine(63, Outside.ZEROS),
    "affine in its border": affine(63, Outside.BORDER),
    "some of affine": affine(0b101010, Outside.BORDER),
    "add": step(T.ADD, (-0.6,), (0.6,), 0),
    "add and clamp": step(T.ADD, (-0.6,), (0.6,), 1),
    "impulse": step(T.IMPULSE, (0,), (1,), 0.5),
    "shot": step(T.SHOT, (0,), (1,), 25),
    "blur": step(T.BLUR, (0.2,), (2.5,), 4),
    "fog": step(T.FOG, (0,), (1.5,)),
}
CHANNELS = {"contrast": (1, 3), "background of grey": (1,), "saturation": (3,), "decolourise": (3,), "hue": (3,),
            "background of a corner": (3,), "background of a colour": (3,)}  # fmt: skip

# Several barriers each: where a step wants to know the whole image, or looks at more than one pixel.
COMPOSITIONS = {
    "of colours": (3, ["saturation", "brightness", "hue", "gamma", "decolourise"]),
    "of much": (3, ["rotation", "brightness", "contrast", "blur", "fog", "affine in its border", "gamma",
                    "background of a corner", "hue", "impulse", "affine in zeros", "saturation"]),
    "from grey": (1, ["gamma", "contrast", "add and clamp", "background of grey", "blur", "background of a corner",
                      "contrast", "fog", "background of a colour"]),
    "barriers alone": (3, ["blur", "blur", "contrast", "contrast", "fog", "fog", "shear_x", "scale", "contrast"]),
    "barriers at the ends": (1, ["fog", "brightness", "impulse", "blur"]),
    "a light step first": (3, ["brightness", "contrast", "hue", "fog"]),
    "a look first": (3, ["contrast", "background of a corner", "gamma", "contrast"]),
    "many channels": (5, ["affine in zeros", "gamma", "fog", "brightness", "affine in its border", "add and clamp"]),
}  # fmt: skip


def program_of(name):
    steps = COMPOSITIONS[name][1] if name in COMPOSITIONS else [name]
    return Program(tuple(STEPS[step] for step in steps))


def channels_of(name):
    return (COMPOSITIONS[name][0],) if name in COMPOSITIONS else CHANNELS.get(name, (1, 2, 3, 5))


BRIGHTER = program_of("brightness")


def fitted(program, height, width):
    """With a blur that suits small images."""
    most = min(height, width) - 1
    return Program(tuple(one._replace(settings=(min(one.settings[0], most),)) if one.transform == T.BLUR else one
                         for one in program.steps), program.groups)  # fmt: skip


def images(shape, seed=0):
    """Random ones with black, white and grey pixels among them and a corner that is not white; floats of 32 bits."""
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=g)
    x[x < 0.05], x[x > 0.95] = 0, 1
    grey = torch.rand(shape[0], 1, *shape[2:], generator=g) < 0.1
    x = torch.where(grey, x[:, :1], x)
    x[:, :, 0, 0] *= 0.5
    return x


def size_of(step, shape):
    """Components of delta."""
    if step.transform in IMAGE_WIDE:
        return math.prod(shape)
    return 1 + FOG_NODES if step.transform == T.FOG else len(step.lower)


def deltas(program, draws, batch, shape, seed=1, share=1.0):
    """Uniform between the steps' bounds, or in a share of them (noise in all of them); floats of 32 bits."""
    g, parts, channels = torch.Generator().manual_seed(seed), [], shape[0]
    for one in program.steps:
        u = torch.rand(draws, batch, size_of(one, (channels, *shape[1:])), generator=g)
        part = 1.0 if one.transform in (T.IMPULSE, T.SHOT) else share
        lower, upper = torch.tensor(one.lower) * part, torch.tensor(one.upper) * part
        if one.transform == T.FOG:
            u[..., 0] = lower + (upper - lower) * u[..., 0]
        else:
            u = lower + (upper - lower) * u
        parts.append(u)
        channels = 3 if one.transform == T.BACKGROUND else channels
    return torch.cat(parts, 2)


# ---- the truth


def grey(x):
    return x[0] if len(x) == 1 else 0.2989 * x[0] + 0.587 * x[1] + 0.114 * x[2]


def plain_brightness(x, delta):
    return np.clip((1 + delta[0]) * x, 0, 1)


def plain_contrast(x, delta):
    return np.clip((1 + delta[0]) * x - delta[0] * grey(x).mean(), 0, 1)


def plain_saturation(x, delta, sign):
    return np.clip((1 + sign * delta[0]) * x - sign * delta[0] * grey(x), 0, 1)


def plain_hue(x, delta):
    out = np.empty_like(x)
    for row, column in np.ndindex(x.shape[1:]):
        hue, saturation, value = colorsys.rgb_to_hsv(*x[:, row, column])
        out[:, row, column] = colorsys.hsv_to_rgb((hue + delta[0]) % 1, saturation, value)
    return out


def plain_gamma(x, delta):
    return np.clip(x ** (1 + delta[0]), 0, 1)


def plain_background(x, delta, source, *colour):
    if source == Source.GREY:
        share = x[0]
    else:
        behind = x[:, 0, 0] if source == Source.CORNER else np.array(colour)
        white = 1 - behind
        share = np.clip(np.tensordot(white, x - behind[:, None, None], 1) / (white @ white), 0, 1)
    return share + (1 - share) * delta[:, None, None]


def plain_affine(x, delta, mask, outside):
    """Where each new pixel comes from, by the inverse of scale, shears and rotation, and a look at its neighbours."""
    values = iter(delta)
    angle, right, down, scale, shear_x, shear_y = (next(values) if mask >> bit & 1 else 0.0 for bit in range(6))
    angle, shear_x, shear_y = np.radians([angle, shear_x, shear_y])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # counter-clockwise, y downwards
    forth = (1 + scale) * turn @ [[1, 0], [np.tan(shear_y), 1]] @ np.array([[1, np.tan(shear_x)], [0, 1]])
    _, height, width = x.shape
    centre, moved = np.array([width - 1, height - 1]) / 2, np.array([right * width, down * height])
    back, most = np.linalg.inv(forth), (width - 1, height - 1)
    out = np.zeros_like(x)
    for row, column in np.ndindex(height, width):
        place = back @ (np.array([column, row]) - centre - moved) + centre
        if outside == Outside.BORDER:
            place = np.clip(place, 0, most)
        u, v = map(math.floor, place)
        for i, j in ((u, v), (u + 1, v), (u, v + 1), (u + 1, v + 1)):
            if 0 <= i < width and 0 <= j < height:
                out[:, row, column] += x[:, j, i] * (1 - abs(place[0] - i)) * (1 - abs(place[1] - j))
    return out


def plain_add(x, delta, clamped):
    moved = x + delta.reshape(x.shape)
    return np.clip(moved, 0, 1) if clamped else moved


def plain_impulse(x, delta, share):
    u = delta.reshape(x.shape)
    return np.select([u < share / 2, u >= 1 - share / 2], [0.0, 1.0], x)


def plain_shot(x, delta, rate):
    return np.clip(poisson.ppf(delta.reshape(x.shape), rate * x) / rate, 0, 1)


def plain_blur(x, delta, radius):
    for axis in (1, 2):
        x = gaussian_filter1d(x, delta[0], axis, mode="mirror", radius=radius)
    return x


def plain_fog(x, delta):
    strength, nodes = delta[0], delta[1:]
    field, weights = np.zeros(x.shape[1:]), 0.5 ** np.arange(len(LATTICES))
    ways = [np.linspace(0, 1, size) if size > 1 else np.zeros(1) for size in x.shape[1:]]
    places = np.stack(np.meshgrid(*ways, indexing="ij"), -1)
    for side, weight in zip(LATTICES, weights / weights.sum(), strict=True):
        lattice, nodes = nodes[: side * side].reshape(side, side), nodes[side * side :]
        field += weight * RegularGridInterpolator((np.linspace(0, 1, side),) * 2, lattice)(places)
    most = x.max()
    return np.clip((x + strength * field) * (most / (most + strength) if most + strength > 0 else 1), 0, 1)


PLAIN = {T.BRIGHTNESS: plain_brightness, T.CONTRAST: plain_contrast, T.SATURATION: plain_saturation, T.HUE: plain_hue,
         T.GAMMA: plain_gamma, T.BACKGROUND: plain_background, T.AFFINE: plain_affine, T.ADD: plain_add,
         T.IMPULSE: plain_impulse, T.SHOT: plain_shot, T.BLUR: plain_blur, T.FOG: plain_fog}  # fmt: skip


def plain_image(program, x, delta):
    for one in program.steps:
        size = size_of(one, x.shape)
        x, delta = PLAIN[one.transform](x, delta[:size], *one.settings), delta[size:]
    assert not len(delta)
    return x


def plain(program, x, delta):
    x, delta = x.double().numpy(), delta.double().numpy()
    return torch.from_numpy(np.stack([[plain_image(program, *pair) for pair in zip(x, row, strict=True)]
                                      for row in delta]))  # fmt: skip


@cache
def case(name, channels, height, width, draws, batch=2):
    """(program, x, delta, truth)"""
    program = fitted(program_of(name), height, width)
    x = images((batch, channels, height, width))
    delta = deltas(program, draws, batch, (channels, height, width))
    return program, x, delta, plain(program, x, delta)


def run(backend, device, program, x, delta, dtype):
    out = nuisance(x.to(device, dtype), delta.to(device, dtype), program, backend=backend)
    assert out.dtype == dtype and out.device.type == device.type and out.is_contiguous()
    return out.cpu()


def close(got, want, atol):
    torch.testing.assert_close(got.double(), want, rtol=0, atol=atol)


# ---- every transform

SMALL = [(1, 1), (1, 9), (9, 1), (7, 5)]
LARGE = [(33, 21), (40, 40), (2, 700)]  # more than a tile of 512 pixels, and a row longer than one


@both_dtypes
@pytest.mark.parametrize("name", STEPS)
def test_small_images_of_any_number_of_channels(backend, device, name, dtype):
    for channels in channels_of(name):
        for height, width in SMALL:
            program, x, delta, want = case(name, channels, height, width, 3)
            close(run(backend, device, program, x, delta, dtype), want, 2e-6 if dtype == torch.float32 else 1e-12)


@both_dtypes
@pytest.mark.parametrize("name", STEPS)
def test_images_of_several_tiles(backend, device, name, dtype):
    warps = STEPS[name].transform == T.AFFINE
    for height, width in LARGE:
        program, x, delta, want = case(name, 3 if 3 in channels_of(name) else 1, height, width, 1)
        # a warp's place among the pixels is rounded to the pixels' dtype
        near = {torch.float32: 2e-7 * width if warps else 2e-6, torch.float64: 1e-15 * width if warps else 1e-12}
        close(run(backend, device, program, x, delta, dtype), want, max(near[dtype], 1e-12))


def test_what_the_tests_above_look_at_is_not_trivial():
    """Clamps are at work and left alone, warps look outside, and nothing is the identity."""
    for name in STEPS:
        _, x, delta, want = case(name, 3 if 3 in channels_of(name) else 1, 33, 21, 1)
        assert want.shape[2] != x.shape[1] or (want[0] - x).abs().amax((1, 2, 3)).gt(0.01).all(), name
        inside = (want > 0) & (want < 1)
        assert inside.double().mean() > 0.3, name
        if name in ("brightness", "contrast", "saturation", "add and clamp", "impulse"):
            assert (want[0][x > 0.5] == 1).any() and (want[0][x < 0.5] == 0).any(), name


@pytest.mark.parametrize("dtype, near", [(torch.float32, 2e-6), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90])
@pytest.mark.parametrize("outside", list(Outside))
def test_quarter_turns_are_counter_clockwise(backend, device, degrees, outside, dtype, near):
    turn = Program((affine(1, outside),))
    for size in (1, 2, 5, 24):
        x = images((2, 3, size, size))
        got = run(backend, device, turn, x, torch.full((1, 2, 1), float(degrees)), dtype)[0]
        close(got, torch.rot90(x.double(), degrees // 90, (2, 3)), near * size)


@both_dtypes
def test_whole_pixels_are_moved_right_and_down(backend, device, dtype):
    x = images((1, 2, 8, 16)).to(dtype)  # sizes that divide without rounding
    move = [Program((affine(0b110, outside),)) for outside in Outside]
    for right, down in ((0, 0), (3, 0), (-3, 0), (0, 2), (0, -2), (5, -7), (16, 8), (-20, 30)):
        delta = torch.tensor([[[right / 16, down / 8]]])
        rows, columns = torch.arange(8) - down, torch.arange(16) - right
        within = ((rows >= 0) & (rows < 8))[:, None] & ((columns >= 0) & (columns < 16))
        shifted = x[..., rows.clamp(0, 7), :][..., columns.clamp(0, 15)]
        zeros, border = (run(backend, device, program, x, delta, dtype)[0] for program in move)
        assert torch.equal(border, shifted)
        assert torch.equal(zeros, torch.where(within, shifted, 0))


@both_dtypes
def test_half_a_pixel_outside_is_half_black(backend, device, dtype):
    x = torch.ones(1, 1, 2, 4)
    out = run(backend, device, Program((affine(2, Outside.ZEROS),)), x, torch.tensor([[[0.125]]]), dtype)
    assert out[0, 0, 0].tolist() == [[0.5, 1, 1, 1]] * 2
    out = run(backend, device, Program((affine(2, Outside.BORDER),)), x, torch.tensor([[[0.125]]]), dtype)
    assert out.eq(1).all()


@both_dtypes
def test_a_scale_of_one_shows_everything_twice_as_large(backend, device, dtype):
    x = torch.zeros(1, 1, 5, 5)
    x[..., 2, 2], x[..., 2, 1], x[..., 0, 0] = 1, 0.5, 1
    out = run(backend, device, Program((affine(8, Outside.ZEROS),)), x, torch.ones(1, 1, 1), dtype)[0, 0, 0]
    assert out.tolist() == [[0.0] * 5, [0.25, 0.375, 0.5, 0.25, 0], [0.5, 0.75, 1, 0.5, 0],
                            [0.25, 0.375, 0.5, 0.25, 0], [0.0] * 5]  # fmt: skip


@both_dtypes
def test_shears_move_x_by_y_and_y_by_x(backend, device, dtype):
    x = torch.zeros(1, 1, 5, 5)
    x[..., 4, 2], x[..., 2, 4] = 0.25, 0.75
    by_y = run(backend, device, Program((affine(16, Outside.ZEROS),)), x, torch.full((1, 1, 1), 45.0), dtype)[0, 0, 0]
    by_x = run(backend, device, Program((affine(32, Outside.ZEROS),)), x, torch.full((1, 1, 1), 45.0), dtype)[0, 0, 0]
    want = torch.zeros(5, 5, dtype=torch.float64)
    want[2, 4] = 0.75  # below the centre by nothing: it stays
    close(by_y, want.index_put((torch.tensor(4), torch.tensor(4)), torch.tensor(0.25).double()), 1e-6)
    want = want.zero_().index_put((torch.tensor(4), torch.tensor(2)), torch.tensor(0.25).double())
    close(by_x, want.index_put((torch.tensor(4), torch.tensor(4)), torch.tensor(0.75).double()), 1e-6)


UNTOUCHED = [name for name, one in STEPS.items() if one.transform not in (T.BACKGROUND, T.IMPULSE, T.SHOT)]


@both_dtypes
@pytest.mark.parametrize("name", UNTOUCHED)
def test_a_delta_of_zero_changes_nothing(backend, device, name, dtype):
    warps_or_adds = STEPS[name].transform in (T.AFFINE, T.ADD, T.BLUR, T.BRIGHTNESS)
    for shape in ((2, 3, 1, 1), (2, 3, 7, 5), (1, 3, 33, 21)):
        x = images(shape).to(dtype)
        program = fitted(program_of(name), *shape[2:])
        out = run(backend, device, program, x, torch.zeros(1, shape[0], program.layout(shape[1:]).dim), dtype)[0]
        if warps_or_adds:
            assert torch.equal(out, x)
        else:
            close(out, x.double(), 1e-6 if dtype == torch.float32 else 1e-14)


@both_dtypes
def test_hue_turns_red_into_green_at_a_third(backend, device, dtype):
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0.5, 0.5, 0.5], [0, 0, 0], [1, 1, 1]])
    x = colours.T[None, :, None]
    for turns, places in ((1 / 3, (2, 0, 1)), (-1 / 3, (1, 2, 0)), (0.0, (0, 1, 2))):
        out = run(backend, device, program_of("hue"), x, torch.full((1, 1, 1), turns), dtype)[0]
        close(out, x[:, places].double(), 1e-6)
    for turns in (0.5, -0.5):  # the complement
        out = run(backend, device, program_of("hue"), x, torch.full((1, 1, 1), turns), dtype)[0, 0, :, 0].T
        close(out[:4], 1 - colours[:4].double(), 1e-6)
        close(out[4:], colours[4:].double(), 0)


@both_dtypes
def test_gamma_at_the_ends_of_its_range(backend, device, dtype):
    x = torch.tensor([[[[0.0, 1e-45, 1e-40, 2.0**-126, 1e-30, 0.25, 1.0]]]])
    out = run(backend, device, program_of("gamma"), x, torch.tensor([[[-1.0]], [[0.0]], [[1.0]], [[-0.5]]]), dtype)
    assert out[0].eq(1).all(), "x^0 is 1, that of 0 too"
    assert out[1:, ..., 0].eq(0).all() and out[..., -1].eq(1).all()
    close(out[1:, 0, 0, 0, 5], torch.tensor([0.25, 0.0625, 0.5]).double(), 1e-7)
    close(out[:, 0, 0, 0, 3:], x[0, 0, 0, 3:].double() ** torch.tensor([[0.0], [1], [2], [0.5]]).double(), 1e-7)


@both_dtypes
def test_a_background_of_white_shows_no_foreground(backend, device, dtype):
    x = torch.ones(1, 3, 2, 2)
    x[..., 1, 1] = 0.5
    delta = torch.tensor([[[0.25, 0.5, 0.75]]])
    for one in (STEPS["background of a corner"],
                step(T.BACKGROUND, (0,) * 3, (1,) * 3, Source.COLOUR, 1, 1, 1)):  # fmt: skip
        out = run(backend, device, Program((one,)), x, delta, dtype)
        assert out[0, 0].flatten(1).T.tolist() == [[0.25, 0.5, 0.75]] * 4


@both_dtypes
def test_impulses_at_the_bounds(backend, device, dtype):
    x = torch.full((1, 1, 1, 6), 0.5)
    u = torch.tensor([[[0.0, 0.25 - 2.0**-24, 0.25, 0.75 - 2.0**-24, 0.75, 1.0]]])
    out = run(backend, device, program_of("impulse"), x, u, dtype)
    assert out.flatten().tolist() == [0, 0, 0.5, 0.5, 1, 1]


def test_backends_agree_where_impulses_begin(backend, device):
    """In float32, for shares whose bounds are rounded."""
    for share in (0.1, 0.2, 0.3, 0.05, 0.707819864399788, 0.45938294312745087, 0.9207476841219603):
        u = 1 - torch.tensor(share).div(2) + torch.arange(-3, 4) * 2.0**-24
        program = Program((step(T.IMPULSE, (0,), (1,), share),))
        x = torch.full((1, 1, 1, 7), 0.5)
        want = nuisance(x, u[None, None], program, backend="reference")
        assert torch.equal(run(backend, device, program, x, u[None, None], torch.float32), want), share


@both_dtypes
def test_shot_noise_counts_the_least_n_whose_probability_exceeds_u(backend, device, dtype):
    rate = 25.0
    means = torch.tensor([0.0, 0.04, 0.5, 1.0])
    x = means.view(1, 4, 1, 1).expand(1, 4, 50, 50).contiguous()
    u = torch.rand(1, 1, 4 * 2500, generator=torch.Generator().manual_seed(0))
    program = program_of("shot")
    counts = run(backend, device, program, x, u, dtype).flatten(3)[0, 0] * rate
    assert counts[0].eq(0).all()
    counts, u = counts.double().numpy().round(), u.view(4, 2500).double().numpy()
    for i in (1, 2):  # below the clamp
        mean = rate * x[0, i, 0, 0].item()
        below = np.where(counts[i] > 0, poisson.cdf(counts[i] - 1, mean), 0)
        seen = counts[i] < 25
        assert (poisson.cdf(counts[i], mean) > u[i])[seen].all() and (below <= u[i] + 1e-15).all()
        assert seen.mean() > 0.95 and len(set(counts[i])) > 4


def test_shot_noise_where_u_is_a_probability(backend, device):
    mean = math.log(2)
    assert math.exp(-mean) == 0.5  # P(n <= 0): not above u = 1/2, so the count is 1
    x = torch.full((1, 1, 1, 3), mean, dtype=torch.float64)
    u = torch.tensor([[[math.nextafter(0.5, 0), 0.5, 0.0]]], dtype=torch.float64)
    out = run(backend, device, Program((step(T.SHOT, (0,), (1,), 1),)), x, u, torch.float64)
    assert out.flatten().tolist() == [0, 1, 0]


@both_dtypes
def test_shot_noise_at_its_highest_rate_and_at_the_ends_of_u(backend, device, dtype):
    x = torch.tensor([[[[1.0, 0.5, 1.0, 0.5, 0.0]]]])
    u = torch.tensor([[[0.5, 0.5, 1 - 2.0**-24, 0.0, 1 - 2.0**-24]]])
    out = run(backend, device, Program((step(T.SHOT, (0,), (1,), 500),)), x, u, dtype).flatten()
    want = np.clip(poisson.ppf(u[0, 0].double().numpy(), 500 * x.flatten().double().numpy()) / 500, 0, 1)
    want[3] = 0  # scipy's least n for u = 0 is -1
    close(out, torch.from_numpy(want), 1e-7)


@both_dtypes
@pytest.mark.parametrize("radius, shape", [(0, (1, 1)), (0, (6, 4)), (1, (2, 2)), (3, (4, 4)), (3, (4, 31)),
                                           (6, (9, 40)), (20, (21, 33)), (64, (65, 66))])  # fmt: skip
def test_blurs_up_to_the_largest_radius(backend, device, radius, shape, dtype):
    program = Program((step(T.BLUR, (0,), (22,), radius),))
    sigma = torch.tensor([[[0.0], [0.01], [0.8], [max(radius / 3, 0.5)]], [[2.5], [1e-6], [radius + 1.0], [0.3]]])
    x = images((4, 2, *shape))
    out = run(backend, device, program, x, sigma, dtype)
    want = plain(program, x, sigma.clamp_min(1e-3))  # scipy divides by sigma; these three are the identity
    close(out, want, 2e-6 if dtype == torch.float32 else 1e-12)
    assert torch.equal(out[0, 0], x[0].to(dtype)) and torch.equal(out[1, 1], x[1].to(dtype))


@both_dtypes
def test_fog_of_black_of_no_strength_and_of_much(backend, device, dtype):
    x = images((3, 2, 6, 7))
    x[1] = 0
    delta = torch.rand(3, 3, 1 + FOG_NODES, generator=torch.Generator().manual_seed(0))
    delta[0, :, 0], delta[1, :, 0], delta[2, :, 0] = 0, 0.7, 30
    program = program_of("fog")
    out = run(backend, device, program, x, delta, dtype)
    assert torch.equal(out[0], x.to(dtype)) and out[:, 1].eq(0).all()
    close(out, plain(program, x, delta), 2e-6 if dtype == torch.float32 else 1e-12)


# ---- layouts and sizes


@both_dtypes
@pytest.mark.parametrize("name", ["brightness", "hue", "affine in zeros", "impulse", "blur", "fog", "of much"])
def test_layout_does_not_matter(backend, device, name, dtype):
    program, x, delta, _ = case(name, 3, 7, 5, 3, 2)
    x, delta = x.to(device, dtype), delta.to(device, dtype)
    want = nuisance(x, delta, program, backend=backend)
    strided, turned = torch.stack([delta, delta], -1)[..., 1], delta.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    for view in (x.contiguous(memory_format=torch.channels_last), torch.stack([x, x], -1)[..., 0],
                 x.transpose(2, 3).contiguous().transpose(2, 3)):  # fmt: skip
        for part in (delta, strided, turned):
            out = nuisance(view, part, program, backend=backend)
            assert torch.equal(out, want) and out.is_contiguous()
        for draws in (slice(1), slice(1, 3)):
            out = nuisance(view, delta[draws], program, backend=backend)
            assert torch.equal(out, want[draws]) and out.is_contiguous()
    one, same = x[:1].expand_as(x), delta[:1, :1].expand_as(delta)
    assert torch.equal(nuisance(one, same, program, backend=backend), want[:1, :1].expand_as(want))


def test_a_negated_view_counts_as_its_values(backend, device):
    x = torch.zeros(2, 1, 3, 4, dtype=torch.complex64) - 0.5j
    negated = x.conj().imag
    assert negated.is_neg() and negated.eq(0.5).all()
    out = run(backend, device, program_of("brightness"), negated, torch.full((1, 2, 1), 0.5), torch.float32)
    assert out.eq(0.75).all()


@both_dtypes
@pytest.mark.parametrize("name", [*STEPS, "of much", "from grey"])
def test_empty_batches_and_no_draws(backend, device, name, dtype):
    channels, program = channels_of(name)[-1], program_of(name)
    layout = program.layout((channels, 7, 6))
    after = 3 if any(one.transform == T.BACKGROUND for one in program.steps) else channels
    for batch, draws in ((0, 2), (2, 0), (0, 0)):
        x = torch.zeros(batch, channels, 7, 6)
        out = run(backend, device, program, x, torch.zeros(draws, batch, layout.dim), dtype)
        assert out.shape == (draws, batch, after, 7, 6)


@both_dtypes
@pytest.mark.parametrize("name", [*STEPS, *COMPOSITIONS])
def test_an_image_and_a_draw_do_not_depend_on_their_neighbours(backend, device, name, dtype):
    channels = channels_of(name)[-1]
    program, x = fitted(program_of(name), 9, 7), images((3, channels, 9, 7))
    delta = deltas(program, 2, 3, (channels, 9, 7))
    whole = run(backend, device, program, x, delta, dtype)
    for i in range(3):
        for k in range(2):
            alone = run(backend, device, program, x[i : i + 1], delta[k : k + 1, i : i + 1], dtype)
            assert torch.equal(alone[0, 0], whole[k, i])


def test_inputs_are_left_as_they_were(backend, device):
    for name in [*STEPS, *COMPOSITIONS]:
        program, x, delta, _ = case(name, channels_of(name)[-1], 7, 5, 1)
        x, delta = x.to(device), delta.to(device)
        before = x.clone(), delta.clone()
        out = nuisance(x, delta, program, backend=backend)
        assert torch.equal(x, before[0]) and torch.equal(delta, before[1])
        out.fill_(9)
        assert torch.equal(x, before[0]), "the result shares no memory with the images"


def test_a_result_of_many_megabytes(backend, device):
    """For which the system is asked for large pages."""
    x, delta = torch.rand(3, 1, 1023, 1021, generator=torch.Generator().manual_seed(0)), torch.linspace(-1, 1, 9)
    out = run(backend, device, BRIGHTER, x, delta.view(3, 3, 1), torch.float32)
    assert out.numel() * 4 > 2**25 and torch.equal(out, ((1 + delta.view(3, 3, 1, 1, 1)) * x).clamp(0, 1))


# ---- compositions


@pytest.mark.parametrize("height, width", [(6, 5), (33, 21)])
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_compositions_in_float64(backend, device, name, height, width):
    program, x, delta, want = case(name, channels_of(name)[0], height, width, 2)
    close(run(backend, device, program, x, delta, torch.float64), want, 1e-11)


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_compositions_in_float32(backend, device, name):
    program, x, delta, want = case(name, channels_of(name)[0], 33, 21, 2)
    got = run(backend, device, program, x, delta, torch.float32).double()
    # what stands before a corner or a hue may be steep there
    assert (got - want).abs().max() < 2e-4 and (got - want).abs().mean() < 5e-6


@both_dtypes
@pytest.mark.parametrize("name", COMPOSITIONS)
@pytest.mark.parametrize("height, width", [(6, 5), (33, 21), (3, 700)])
def test_a_composition_is_its_steps_one_after_the_other(backend, device, name, height, width, dtype):
    channels, (draws, batch) = channels_of(name)[0], (2, 2)
    program, x = fitted(program_of(name), height, width), images((batch, channels, height, width)).to(device, dtype)
    delta = deltas(program, draws, batch, (channels, height, width)).to(device, dtype)
    got = nuisance(x, delta, program, backend=backend)
    image, rest = x.expand(draws, *x.shape).flatten(0, 1), delta.flatten(0, 1)
    for one in program.steps:
        size = size_of(one, image.shape[1:])
        image, rest = nuisance(image, rest[None, :, :size], Program((one,)), backend=backend)[0], rest[:, size:]
    assert torch.equal(got, image.view(got.shape))


def test_as_many_steps_as_a_program_may_have(backend, device):
    names = ["brightness", "affine in its border", "contrast", "hue", "blur", "gamma", "fog", "saturation"]
    program = Program(tuple(STEPS[names[i % 8]] for i in range(MAX_STEPS)))
    x = images((1, 3, 8, 7))
    delta = deltas(program, 1, 1, (3, 8, 7), share=0.2)
    close(run(backend, device, program, x, delta, torch.float64), plain(program, x, delta), 1e-10)


@both_dtypes
def test_steps_of_one_group_share_their_delta(backend, device, dtype):
    x = images((2, 3, 6, 5))
    for steps, groups, places in (
        (["brightness", "contrast"], (0, 0), [0, 0]),
        (["hue", "gamma", "brightness", "hue"], (0, 1, 1, 0), [0, 1, 1, 0]),
        (["add and clamp", "impulse", "add and clamp"], (5, 5, 2), [0, 0, 1]),
        (["fog", "brightness", "fog"], (0, 1, 0), [0, 1, 0]),
    ):
        ones = [STEPS[one] for one in steps]
        shared, apart = Program(tuple(ones), groups), Program(tuple(ones))
        sizes = [size_of(one, x.shape[1:]) for one in ones]
        own = {place: torch.rand(2, 2, size, generator=torch.Generator().manual_seed(place)) * 0.4
               for place, size in zip(places, sizes, strict=True)}  # fmt: skip
        delta = torch.cat([own[place] for place in sorted(own)], 2)
        assert shared.layout(x.shape[1:]).dim == delta.shape[2]
        want = run(backend, device, apart, x, torch.cat([own[place] for place in places], 2), dtype)
        assert torch.equal(run(backend, device, shared, x, delta, dtype), want)


# Pixels leave [0, 1] where an addition is not clamped; the step behind it meets them.
BEYOND = ["brightness", "contrast", "saturation", "gamma", "background of a colour", "impulse", "blur", "fog",
          "rotation"]  # fmt: skip


@both_dtypes
@pytest.mark.parametrize("name", BEYOND)
def test_pixels_outside_the_range_between_steps(backend, device, name, dtype):
    program = Program((STEPS["add"], STEPS[name]))
    x = images((2, 3, 6, 5))
    delta = deltas(program, 2, 2, (3, 6, 5))
    added = x.to(dtype) + delta[..., :90].view(2, 2, 3, 6, 5).to(dtype)
    assert (added < -0.3).any() and (added > 1.3).any()
    alone = Program((STEPS[name],))
    if name == "gamma":
        added = added.clamp_min(0)
    want = torch.cat([plain(alone, added[k], delta[k : k + 1, :, 90:]) for k in range(2)])
    close(run(backend, device, program, x, delta, dtype), want, 4e-6 if dtype == torch.float32 else 1e-12)


@both_dtypes
def test_shot_noise_of_more_than_white_is_white(backend, device, dtype):
    """At the highest rate too, where the first term of the sum is beyond the least number."""
    x, added = torch.ones(1, 1, 1, 4), torch.tensor([0.0, 0.4, 0.5, 1.0])
    delta = torch.cat([added, torch.full((4,), 0.75)])[None, None]
    program = Program((STEPS["add"], step(T.SHOT, (0,), (1,), 500)))
    assert run(backend, device, program, x, delta, dtype).flatten().tolist() == [1, 1, 1, 1]


@both_dtypes
def test_fog_over_an_image_below_zero(backend, device, dtype):
    """Its greatest value is below zero, and the formula is taken at its word."""
    program = Program((STEPS["add"], STEPS["fog"]))
    x, strength = torch.full((1, 1, 2, 3), 0.125), 0.5
    delta = torch.cat([torch.full((1, 1, 6), -0.25), torch.full((1, 1, 1), strength), torch.zeros(1, 1, FOG_NODES)], 2)
    out = run(backend, device, program, x, delta, dtype)
    close(out, torch.full_like(out, 0.125**2 / (strength - 0.125)).double(), 1e-7)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("number", [-0.25, math.nan], ids=["below zero", "nan"])
def test_the_way_back_of_fog_ends_within_the_image(backend, device, number):
    """Where no pixel may be the greatest value that it looks for; in a child, for what is beyond the image."""
    if device.type != "cpu":
        pytest.skip("a GPU does not survive a fork")
    program = Program((STEPS["add"], STEPS["fog"]))
    layout = program.layout((1, 4, 4))
    x, delta = torch.full((1, 1, 4, 4), 0.125), torch.zeros(1, 1, layout.dim)
    delta[..., :16], delta[..., 16] = number + 0.001 * torch.arange(16), 0.5
    args = torch.ones(1, 1, 1, 4, 4), x, delta, layout.codes, layout.parameters
    want = torch.cat([part.flatten() for part in torch.ops.robustperf.nuisance_backward(*args, "reference")])
    assert want.any()
    child = os.fork()
    if child == 0:
        got = torch.cat([part.flatten() for part in torch.ops.robustperf.nuisance_backward(*args, backend)])
        os._exit(0 if math.isnan(number) or torch.allclose(got, want, rtol=1e-4, atol=1e-6) else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "3: it ended with a wrong gradient"


# ---- gradients


def leaves(x, delta, device="cpu", dtype=torch.float64):
    return (t.to(device, dtype).detach().requires_grad_() for t in (x, delta))


def without_ties(shape, seed=0):
    """Pixels away from each other and from 0 and 1, where hue, fog and the clamps have their kinks."""
    g = torch.Generator().manual_seed(seed)
    order = torch.rand(shape, generator=g, dtype=torch.float64).flatten(1).argsort(1).double()
    return (0.03 + 0.94 * order / max(order.shape[1] - 1, 1)).view(shape)


def gradients(backend, program, x, delta, grad):
    out = nuisance(x, delta, program, backend=backend)
    return torch.autograd.grad(out, (x, delta), grad)


SMOOTH = [name for name in STEPS if name != "shot"]


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_by_finite_differences(backend, device, name):
    program = fitted(program_of(name), 3, 4)
    shape = (2 if name == "fog" else channels_of(name)[-1], 3, 4)
    x, delta = leaves(without_ties((1, *shape)), deltas(program, 1, 1, shape, seed=3, share=0.8), device)
    assert torch.autograd.gradcheck(lambda x, delta: nuisance(x, delta, program, backend=backend), (x, delta),
                                    eps=1e-6, atol=1e-7, rtol=1e-5)  # fmt: skip


CHAINS = {
    "of colours": (3, ["saturation", "brightness", "hue", "gamma", "decolourise"]),
    "of barriers": (3, ["rotation", "contrast", "blur", "affine in its border", "background of a corner", "contrast"]),
    "of fields": (1, ["fog", "add and clamp", "impulse", "scale"]),
    # more sums over the pixels than a pass of the CUDA kernel adds up, before and behind a barrier
    "of many sums": (
        3,
        [
            "brightness",
            "background of a colour",
            "hue",
            "background of a colour",
            "gamma",
            "background of a corner",
            "saturation",
            "background of a colour",
            "brightness",
            "hue",
            "background of a colour",
            "gamma",
        ],
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_gradients_of_compositions_by_finite_differences(backend, device, name):
    channels, steps = CHAINS[name]
    program, shape = fitted(Program(tuple(STEPS[one] for one in steps)), 4, 3), (channels, 4, 3)
    # two draws of one image, whose gradients meet in it; deltas so small that no clamp makes a tie
    x, delta = leaves(without_ties((1, *shape)), deltas(program, 2, 1, shape, seed=5, share=0.15), device)
    assert torch.autograd.gradcheck(lambda x, delta: nuisance(x, delta, program, backend=backend), (x, delta),
                                    eps=1e-6, atol=1e-7, rtol=1e-5, fast_mode=name == "of fields")  # fmt: skip


@pytest.mark.parametrize("dtype, near", [(torch.float32, 2e-4), (torch.float64, 1e-11)], ids=str)
@pytest.mark.parametrize("name", [*SMOOTH, *CHAINS])
def test_gradients_are_those_of_the_reference(backend, device, name, dtype, near):
    if name in CHAINS:
        program, channels = Program(tuple(STEPS[one] for one in CHAINS[name][1])), CHAINS[name][0]
    else:
        program, channels = program_of(name), channels_of(name)[-1]
    for height, width in ((33, 21), (2, 700)):
        shape = (channels, height, width)
        if width == 700:
            program = fitted(program, height, width)
        x, given = without_ties((2, *shape)), deltas(program, 2, 2, shape, share=0.15 if name in CHAINS else 0.8)
        out = nuisance(x, given.double(), program, backend="reference")
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        want = gradients("reference", program, *leaves(x, given), weights)
        got = gradients(backend, program, *leaves(x, given, device, dtype), weights.to(device, dtype))
        for mine, truth in zip(got, want, strict=True):
            assert mine.dtype == dtype and mine.is_contiguous()
            wrong = (mine.cpu().double() - truth).abs() / truth.abs().max().clamp_min(1e-9)
            # in float32 a pixel beside a kink may fall on its other side
            assert wrong.mean() < near and (dtype == torch.float32 or wrong.max() < near)
            assert mine.count_nonzero() or name == "impulse"


def test_gradients_of_several_draws_add_up_in_the_image(backend, device):
    for name in ("hue", "affine in zeros", "contrast", "fog", "add"):
        program, (x, delta) = program_of(name), leaves(without_ties((2, 3, 6, 5)), torch.zeros(3, 2, 1), device)
        delta = deltas(program, 3, 2, (3, 6, 5), share=0.5).to(delta)
        delta.requires_grad_()
        weights = torch.randn(3, 2, 3, 6, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(device)
        whole, by_delta = gradients(backend, program, x, delta, weights)
        parts = [gradients(backend, program, x, delta[k : k + 1], weights[k : k + 1]) for k in range(3)]
        torch.testing.assert_close(whole, sum(part for part, _ in parts), rtol=1e-13, atol=1e-13)
        alone = [torch.autograd.grad(nuisance(x, delta[k:k + 1], program, backend=backend), delta, weights[k:k + 1])[0]
                 for k in range(3)]  # fmt: skip
        torch.testing.assert_close(by_delta, sum(alone), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("steps", [("brightness", "contrast"), ("add", "add"), ("fog", "fog"),
                                   ("affine in zeros", "affine in its border"), ("hue", "gamma")])  # fmt: skip
def test_gradients_of_a_shared_delta_add_up(backend, device, steps):
    ones = tuple(STEPS[one] for one in steps)
    shared, apart = Program(ones, (0, 0)), Program(ones)
    x, delta = leaves(without_ties((1, 3, 4, 3)), deltas(Program(ones[:1]), 2, 1, (3, 4, 3), share=0.1), device)
    weights = torch.randn(2, 1, 3, 4, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(device)
    by_x, by_delta = gradients(backend, shared, x, delta, weights)
    twice = torch.cat([delta, delta], 2).detach().requires_grad_()
    want_x, want_delta = gradients(backend, apart, x, twice, weights)
    torch.testing.assert_close(by_x, want_x, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(by_delta, sum(want_delta.chunk(2, 2)), rtol=1e-13, atol=1e-13)


@both_dtypes
def test_shot_noise_has_gradients_of_zero(backend, device, dtype):
    for names in (["shot"], ["brightness", "shot"], ["shot", "gamma"], ["shot", "fog"]):
        program = Program(tuple(STEPS[one] for one in names))
        x, delta = leaves(without_ties((2, 3, 4, 3)), deltas(program, 2, 2, (3, 4, 3), share=0.3), device, dtype)
        by_x, by_delta = gradients(backend, program, x, delta, torch.ones(2, 2, 3, 4, 3, dtype=dtype, device=device))
        assert not by_x.any() and by_x.shape == x.shape and by_delta.shape == delta.shape
        place = names.index("shot")  # only what comes behind it may have a gradient
        assert not by_delta[..., : 36 + place].any() and by_delta[..., 36 + place :].any() == (names[-1] != "shot")


@both_dtypes
def test_impulses_stop_the_gradient_and_leave_it_elsewhere(backend, device, dtype):
    program = program_of("impulse")
    x, delta = leaves(images((1, 2, 3, 4)), torch.linspace(0, 1, 24)[None, None], device, dtype)
    by_x, by_delta = gradients(backend, program, x, delta, torch.full((1, 1, 2, 3, 4), 3.0, dtype=dtype, device=device))
    u = delta.detach().flatten()
    assert torch.equal(by_x.flatten(), torch.where((u < 0.25) | (u >= 0.75), 0, 3).to(dtype)) and not by_delta.any()


@both_dtypes
def test_gradients_where_something_is_divided_by_zero(backend, device, dtype):
    """Black and grey pixels, sigma 0, a fog of nothing over nothing, a white corner: finite numbers."""
    for name, number in (("hue", 0.1), ("gamma", -0.5), ("gamma", -1.0), ("blur", 0.0), ("fog", 0.0), ("contrast", 0.0),
                         ("background of a corner", 0.5), ("saturation", -1.0), ("affine in zeros", 0.0)):  # fmt: skip
        program = program_of(name)
        for pixel in (0.0, 0.5, 1.0):
            x = torch.full((1, 3, 6, 5), pixel)
            x, delta = leaves(x, torch.full((1, 1, program.layout((3, 6, 5)).dim), number), device, dtype)
            for part in gradients(backend, program, x, delta, torch.ones(1, 1, 3, 6, 5, dtype=dtype, device=device)):
                assert part.isfinite().all(), (name, pixel)


def test_a_clamp_passes_gradients_on_its_bounds(backend, device):
    """As torch's does: white times 1 is on the bound, times 1.5 beyond it."""
    x, delta = leaves(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1), device)
    one = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64, device=device)
    assert [part.item() for part in gradients(backend, program_of("brightness"), x, delta, one)] == [1, 1]
    assert [part.item() for part in gradients(backend, program_of("brightness"), x, delta + 0.5, one)] == [0, 0]


def test_places_on_the_last_pixels_follow_delta_where_there_is_something_outside(backend, device):
    """Nothing moved: places on pixels take the slope to the right, those held at the border none."""
    row = torch.tensor([0.1, 0.2, 0.4, 0.8], dtype=torch.float64)
    right = torch.tensor([0.1, 0.2, 0.4, -0.8], dtype=torch.float64)
    for outside, want in ((Outside.ZEROS, right), (Outside.BORDER, right * torch.tensor([0, 1, 1, 0]))):
        for part, x in ((2, row.view(1, 1, 1, 4)), (4, row.view(1, 1, 4, 1))):
            program = Program((affine(part, outside),))
            x, delta = leaves(x, torch.zeros(1, 1, 1), device)
            out = nuisance(x, delta, program, backend=backend).flatten()
            found = torch.cat([torch.autograd.grad(value, delta, retain_graph=True)[0].flatten() for value in out])
            torch.testing.assert_close(found.cpu(), -4 * want, rtol=0, atol=1e-14)


def test_empty_batches_and_no_draws_have_gradients(backend, device):
    for name in ("brightness", "shot", "add", "of much"):
        program = program_of(name)
        for batch, draws in ((0, 2), (2, 0), (0, 0)):
            delta = torch.zeros(draws, batch, program.layout((3, 7, 6)).dim)
            x, delta = leaves(torch.zeros(batch, 3, 7, 6), delta, device)
            weights = torch.ones(draws, batch, 3, 7, 6, dtype=torch.float64, device=device)
            by_x, by_delta = gradients(backend, program, x, delta, weights)
            assert by_x.shape == x.shape and by_delta.shape == delta.shape and not by_x.any()


def test_either_gradient_is_had_alone(backend, device):
    program = program_of("contrast")
    x, delta = leaves(without_ties((2, 3, 4, 3)), torch.full((1, 2, 1), 0.2), device)
    whole = gradients(backend, program, x, delta, torch.ones(1, 2, 3, 4, 3, dtype=torch.float64, device=device))
    nuisance(x.detach(), delta, program, backend=backend).sum().backward()
    nuisance(x, delta.detach(), program, backend=backend).sum().backward()
    assert torch.equal(x.grad, whole[0]) and torch.equal(delta.grad, whole[1])
    assert not nuisance(x.detach(), delta.detach(), program, backend=backend).requires_grad


@both_dtypes
def test_a_gradient_of_any_layout(backend, device, dtype):
    program, x, delta, _ = case("of much", 3, 7, 5, 1)
    x, delta = leaves(x, delta, device, dtype)
    weights = torch.randn(1, 2, 3, 7, 5, generator=torch.Generator().manual_seed(4)).to(device, dtype)
    want = gradients(backend, program, x, delta, weights)
    strange = torch.stack([weights, weights], -1)[..., 0]
    for mine, same in zip(gradients(backend, program, x, delta, strange), want, strict=True):
        assert torch.equal(mine, same)
    view = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    for mine, same in zip(gradients(backend, program, view, delta, weights), want, strict=True):
        assert torch.equal(mine, same)
    out = nuisance(x, delta, program, backend=backend)
    out.sum().backward()  # a gradient of ones that takes no memory
    ones = gradients(backend, program, x, delta, torch.ones_like(out))
    assert torch.equal(x.grad, ones[0]) and torch.equal(delta.grad, ones[1])


def test_there_is_no_gradient_of_the_gradient(backend, device):
    x, delta = leaves(without_ties((1, 3, 4, 3)), torch.full((1, 1, 1), 0.2), device)
    out = nuisance(x, delta, program_of("hue"), backend=backend)
    with pytest.raises(NotImplementedError, match="nuisance: has no gradient of its gradient"):
        torch.autograd.grad(out.sum(), x, create_graph=True)


# ---- torch.library and torch.compile


CHECKED = [(3, ["brightness"]), (3, ["add"]), (2, ["shot"]), (3, ["blur", "hue"]), (1, ["background of grey", "fog"])]


@pytest.mark.parametrize("channels, names", CHECKED)
def test_opcheck_of_nuisance(backend, device, channels, names):
    program = Program(tuple(STEPS[one] for one in names))
    layout = program.layout((channels, 6, 5))
    x, delta = without_ties((2, channels, 6, 5)), deltas(program, 2, 2, (channels, 6, 5), share=0.3)
    wide = x.contiguous(memory_format=torch.channels_last)
    for image, part in ((x.float(), delta), (wide, delta[:1].double()), (x[:0].float(), delta[:, :0])):
        image, part = leaves(image, part, device, image.dtype)
        torch.library.opcheck(torch.ops.robustperf.nuisance.default,
                              (image, part, layout.codes, layout.parameters, backend))  # fmt: skip


@pytest.mark.parametrize("layout_of_x", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("channels, names", CHECKED)
def test_opcheck_of_the_way_back(backend, device, channels, names, layout_of_x):
    program = Program(tuple(STEPS[one] for one in names))
    layout = program.layout((channels, 6, 5))
    x, delta = without_ties((2, channels, 6, 5)).float(), deltas(program, 1, 2, (channels, 6, 5), share=0.3)
    after = program.steps[0].shape_after((channels, 6, 5))
    grad = torch.randn(1, 2, *after, generator=torch.Generator().manual_seed(4))
    torch.library.opcheck(torch.ops.robustperf.nuisance_backward.default,
                          (grad.to(device), x.to(device).contiguous(memory_format=layout_of_x), delta.to(device),
                           layout.codes, layout.parameters, backend))  # fmt: skip


def test_the_way_back_where_autograd_is_shut_out(backend, device):
    """In inference mode, and in a compiled graph."""
    layout = BRIGHTER.layout((1, 2, 2))
    grad, x = torch.ones(1, 1, 1, 2, 2, device=device), torch.full((1, 1, 2, 2), 0.5, device=device)
    args = grad, x, torch.zeros(1, 1, 1, device=device), layout.codes, layout.parameters, backend
    with torch.inference_mode():
        by_x, by_delta = torch.ops.robustperf.nuisance_backward(*args)
    assert by_x.eq(1).all() and by_delta.item() == 2


def test_opcheck_of_the_draws(backend, device):
    layout = program_of("from grey").layout((1, 6, 5))
    index, draw = torch.arange(5, device=device)[::2], torch.arange(2, device=device)
    rest = layout.codes, layout.parameters, -7, None, backend
    torch.library.opcheck(torch.ops.robustperf.nuisance_sample.default, (index, draw, *rest))
    for dtype in (torch.float32, torch.float64):
        x, out = images((3, 1, 6, 5)).to(device, dtype), torch.zeros(2, 3, 3, 6, 5, dtype=dtype, device=device)
        torch.library.opcheck(torch.ops.robustperf.nuisance_draw.default, (out, x, index, draw, *rest))
    torch.library.opcheck(torch.ops.robustperf.nuisance_draw.default, (out[:0], x, index, draw[:0], *rest))


def test_a_compiled_function_and_its_gradients_equal_the_eager_ones(backend, device):
    program = Program((STEPS["rotation"], STEPS["hue"], STEPS["contrast"], STEPS["blur"]))

    def loss(x, delta):
        return nuisance(x * 0.9, delta.sin(), program, backend=backend).square().sum((2, 3, 4))

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for batch in (2, 3):  # another size is another graph or a dynamic one
        given = without_ties((batch, 3, 6, 5)), deltas(program, 2, batch, (3, 6, 5), share=0.3)
        found = []
        for function in (loss, compiled):
            x, delta = leaves(*given, device)
            out = function(x, delta)
            out.sum().backward()
            found.append((out.detach(), x.grad, delta.grad))
        for eager, graph in zip(*found, strict=True):
            assert torch.equal(eager, graph)


def test_a_compiled_function_refuses_pixels_where_native_looks_itself(backend, device):
    compiled = torch.compile(lambda x, delta: nuisance(x, delta, program_of("brightness"), backend=backend) + 1,
                             fullgraph=True, backend="aot_eager")  # fmt: skip
    x, delta = torch.full((1, 1, 2, 2), 2.0, device=device), torch.zeros(1, 1, 1, device=device)
    if backend == "native":
        with pytest.raises(ValueError, match=r"x: expected pixels within \[0, 1\]"):
            compiled(x, delta)
    else:
        assert compiled(x, delta).eq(2).all()


def test_on_the_meta_device_shapes_are_worked_out():
    program = program_of("from grey")
    x = torch.zeros(2, 1, 6, 5, device="meta", dtype=torch.float64)
    out = nuisance(x, torch.zeros(4, 2, program.layout((1, 6, 5)).dim, device="meta", dtype=torch.float64), program)
    assert (out.shape, out.dtype, out.device.type) == ((4, 2, 3, 6, 5), torch.float64, "meta")


# ---- errors

X, D = torch.full((2, 3, 4, 5), 0.5), torch.zeros(1, 2, 1)


def with_pixel(value, dtype=torch.float32):
    x = X.to(dtype).clone()
    x[1, 2, 3, 4] = value
    return x


@pytest.mark.parametrize("x, delta, program, error, message", [
    (X.half(), D, BRIGHTER, TypeError, r"x: expected torch.float32 or torch.float64, got torch.float16"),
    (X.mul(255).byte(), D, BRIGHTER, TypeError, r"x: .* got torch.uint8"),
    (X.numpy(), D, BRIGHTER, TypeError, r"x: expected a tensor, got ndarray"),
    (None, D, BRIGHTER, TypeError, r"x: expected a tensor, got NoneType"),
    (X[0], D, BRIGHTER, ValueError, r"x: expected shape \[B, C, H, W\], got \[3, 4, 5\]"),
    (X[None], D, BRIGHTER, ValueError, r"x: expected shape \[B, C, H, W\], got \[1, 2, 3, 4, 5\]"),
    (X[:, :0], D, BRIGHTER, ValueError, r"x: expected images with pixels, got shape \[2, 0, 4, 5\]"),
    (X[:, :, :0], D, BRIGHTER, ValueError, r"x: expected images with pixels, got shape \[2, 3, 0, 5\]"),
    (X[..., :0], D, BRIGHTER, ValueError, r"x: expected images with pixels, got shape \[2, 3, 4, 0\]"),
    (X, D.half(), BRIGHTER, TypeError, r"delta: expected torch.float32, got torch.float16"),
    (X, D.double(), BRIGHTER, TypeError, r"delta: expected torch.float32, got torch.float64"),
    (X.double(), D, BRIGHTER, TypeError, r"delta: expected torch.float64, got torch.float32"),
    (X, [0.0], BRIGHTER, TypeError, r"delta: expected a tensor, got list"),
    (X, D[0], BRIGHTER, ValueError, r"delta: expected shape \[K, 2, 1\], got \[2, 1\]"),
    (X, D[:, :1], BRIGHTER, ValueError, r"delta: expected shape \[K, 2, 1\], got \[1, 1, 1\]"),
    (X, D[..., :0], BRIGHTER, ValueError, r"delta: expected shape \[K, 2, 1\], got \[1, 2, 0\]"),
    (X, torch.zeros(1, 2, 2), BRIGHTER, ValueError, r"delta: expected shape \[K, 2, 1\], got \[1, 2, 2\]"),
    (X, D, program_of("fog"), ValueError, r"delta: expected shape \[K, 2, 405\], got \[1, 2, 1\]"),
    (X, D, program_of("add"), ValueError, r"delta: expected shape \[K, 2, 60\], got \[1, 2, 1\]"),
    (X, D.to("meta"), BRIGHTER, ValueError, r"delta: expected a tensor on cpu, got one on meta"),
    (X[:, :1], D, program_of("saturation"), ValueError, r"x: saturation expected RGB images, 3 channels, got \[1, 4"),
    (X[:, :2], D, program_of("hue"), ValueError, r"x: hue expected RGB images, 3 channels, got \[2, 4, 5\]"),
    (X[:, :2], D, program_of("contrast"), ValueError, r"x: contrast expected grey or RGB images, 1 or 3 channels, got"),
    (X, D, program_of("background of grey"), ValueError, r"x: background expected grey images, 1 channel, got \[3, 4"),
    (X[:, :1], D, program_of("background of a corner"), ValueError, r"x: background expected RGB images, 3 channels"),
    (X[:, :1], D, program_of("background of a colour"), ValueError, r"x: background expected RGB images, 3 channels"),
    (X, D, program_of("blur"), ValueError, r"x: blur expected images larger than the blur's radius 4, got \[3, 4, 5\]"),
    (X[:, :1], D, Program((STEPS["background of grey"],) * 2), ValueError, r"x: background expected grey .* got \[3,"),
    (X, D, Program((STEPS["add"], STEPS["brightness"]), (0, 0)), ValueError,
     r"x: brightness has 1 components of delta for this shape and shares the delta of a step that has 60"),
])  # fmt: skip
def test_errors_name_the_argument_and_what_it_got(backend, x, delta, program, error, message):
    with pytest.raises(error, match=message):
        nuisance(x, delta, program, backend=backend)


@both_dtypes
@pytest.mark.parametrize("value, message", [
    (math.nan, r"expected finite pixels, got nan at \[1, 2, 3, 4\] \(and 0 more\)"),
    (math.inf, r"expected finite pixels, got inf at \[1, 2, 3, 4\] \(and 0 more\)"),
    (-math.inf, r"expected finite pixels, got -inf at \[1, 2, 3, 4\] \(and 0 more\)"),
    (1 + 2.0**-19, r"expected pixels within \[0, 1\], got 1.000001907348\d+ at \[1, 2, 3, 4\] \(and 0 more\)"),
    (-(2.0**-19), r"expected pixels within \[0, 1\], got -1.907348\d+e-06 at \[1, 2, 3, 4\] \(and 0 more\)"),
    (255.0, r"expected pixels within \[0, 1\], got 255.0 at \[1, 2, 3, 4\] \(and 0 more\)"),
])  # fmt: skip
def test_pixels_outside_the_range_are_named(backend, value, message, dtype):
    if backend in ("cuda", "triton"):
        pytest.skip("a GPU is not waited for")
    for program in (BRIGHTER, program_of("of much")):
        for draws in (1, 3):
            x, program = with_pixel(value, dtype), fitted(program, 4, 5)
            with pytest.raises(ValueError, match=f"^x: {message}"):
                nuisance(x, torch.zeros(draws, 2, program.layout((3, 4, 5)).dim, dtype=dtype), program, backend=backend)


def test_pixels_beyond_the_range_by_rounding_are_clamped(backend, device):
    if backend in ("cuda", "triton"):
        pytest.skip("a GPU is not waited for")
    for value, clamped in ((1 + 2.0**-23, 1.0), (-1e-45, 0.0), (-3e-8, 0.0)):
        out = run(backend, device, BRIGHTER, with_pixel(value), D, torch.float32)
        assert out[0, 1, 2, 3, 4].item() == clamped


def test_minus_zero_and_the_ends_of_the_range_are_pixels(backend, device):
    for value in (0.0, -0.0, 1.0, 1e-45):
        out = run(backend, device, BRIGHTER, with_pixel(value), D, torch.float32)
        assert out[0, 1, 2, 3, 4].item() == torch.tensor(value).item()


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match=r"backend: expected one of reference, native, cuda, triton, got 'fast'"):
        nuisance(X, D, BRIGHTER, backend="fast")


def test_programs_of_no_steps_and_of_too_many():
    for count in (0, MAX_STEPS + 1):
        with pytest.raises(ValueError, match=rf"program: expected 1 to {MAX_STEPS} steps, got {count}"):
            Program((STEPS["hue"],) * count)
    assert STEPS["blur"].settings[0] < MAX_RADIUS


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_delta_that_is_not_finite_is_refused(backend, device, wrong):
    if backend in ("cuda", "triton"):
        pytest.skip("a GPU is not waited for")
    delta = torch.zeros(2, 3, 1, device=device)
    delta[1, 2, 0] = wrong
    with pytest.raises(ValueError, match=rf"delta: expected finite numbers, got {wrong} at \[1, 2, 0\] \(and 0 more\)"):
        nuisance(torch.full((3, 1, 4, 4), 0.5, device=device), delta, BRIGHTER, backend=backend)


@both_dtypes
def test_minus_zero_is_black(backend, device, dtype):
    x = torch.tensor([-0.0, 0.5], dtype=dtype, device=device).view(1, 1, 1, 2)
    out = nuisance(x, torch.full((1, 1, 1), 0.5, dtype=dtype, device=device), BRIGHTER, backend=backend)
    assert out.flatten().tolist() == [0.0, 0.75]


def test_hue_leaves_a_grey_and_its_gradient(backend, device):
    x = torch.full((1, 3, 1, 1), 0.5, device=device, requires_grad=True)
    out = nuisance(x, torch.full((1, 1, 1), 0.2, device=device), Program((STEPS["hue"],)), backend=backend)
    assert torch.equal(out[0], x)
    out.backward(torch.tensor([1.0, 2.0, 3.0], device=device).view(out.shape))
    assert x.grad.flatten().tolist() == [1, 2, 3]
