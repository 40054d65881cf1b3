"""Programs, images and deltas for the tests of nuisance programs, and every transform in plain float64 Python."""

import colorsys
import math
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
    Distribution,
    Outside,
    Program,
    Source,
    Step,
    Transform,
)

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
# Several barriers each: where a step needs image statistics, or reads more than one pixel.
COMPOSITIONS = {
    "of colours": (3, ["saturation", "brightness", "hue", "gamma", "decolourise"]),
    "of much": (3, ["rotation", "brightness", "contrast", "blur", "fog", "affine in its border", "gamma",
                    "background of a corner", "hue", "impulse", "affine in zeros", "saturation"]),
    "from grey": (1, ["gamma", "contrast", "add and clamp", "background of grey", "blur", "background of a corner",
                      "contrast", "fog", "background of a colour"]),
    "barriers alone": (3, ["blur", "blur", "contrast", "contrast", "fog", "fog", "shear_x", "scale", "contrast"]),
    "barriers at the ends": (1, ["fog", "brightness", "impulse", "blur"]),
    "a light step first": (3, ["brightness", "contrast", "hue", "fog"]),
    "statistics first": (3, ["contrast", "background of a corner", "gamma", "contrast"]),
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


def deltas(program, draws, batch, shape, seed=1, fraction=1.0):
    """Uniform between the steps' bounds, or in a fraction of them (noise in all of them); floats of 32 bits."""
    g, parts, channels = torch.Generator().manual_seed(seed), [], shape[0]
    for one in program.steps:
        u = torch.rand(draws, batch, size_of(one, (channels, *shape[1:])), generator=g)
        part = 1.0 if one.transform in (T.IMPULSE, T.SHOT) else fraction
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
        fraction = x[0]
    else:
        behind = x[:, 0, 0] if source == Source.CORNER else np.array(colour)
        white = 1 - behind
        fraction = np.clip(np.tensordot(white, x - behind[:, None, None], 1) / (white @ white), 0, 1)
    return fraction + (1 - fraction) * delta[:, None, None]


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


def plain_impulse(x, delta, fraction):
    u = delta.reshape(x.shape)
    return np.select([u < fraction / 2, u >= 1 - fraction / 2], [0.0, 1.0], x)


def plain_shot(x, delta, rate):
    return np.clip(poisson.ppf(delta.reshape(x.shape), rate * x) / rate, 0, 1)


def plain_blur(x, delta, radius):
    for axis in (1, 2):
        x = gaussian_filter1d(x, delta[0], axis, mode="mirror", radius=radius)
    return x


def plain_fog(x, delta):
    strength, nodes = delta[0], delta[1:]
    field, weights = np.zeros(x.shape[1:]), 0.5 ** np.arange(len(LATTICES))
    axes = [np.linspace(0, 1, size) if size > 1 else np.zeros(1) for size in x.shape[1:]]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
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
