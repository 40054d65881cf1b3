"""The definition of every transform, in PyTorch; autograd gives its gradients."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from robustperf.ops.program import AFFINE_PARAMETERS, GREY_WEIGHTS, LATTICES, Outside, Source, Transform, steps_of


def nuisance(x, delta, codes, parameters):
    draws, batch = delta.shape[:2]
    image = x.expand(draws, *x.shape).flatten(0, 1)
    delta = delta.flatten(0, 1)
    for step in steps_of(codes, parameters):
        own = delta[:, step.offset : step.offset + step.dim]
        image = _TRANSFORMS[step.transform](image, own, *step.settings)
    return image.reshape(draws, batch, *image.shape[1:]).contiguous()


def _clamp01(image):
    return image.clamp(0, 1)


def _per_image(delta):
    """[N, 1] as [N, 1, 1, 1]."""
    return delta[..., None, None]


def _grey(image):
    """[N, 1, H, W]: torchvision's weights; grey images as they are."""
    if image.shape[1] == 1:
        return image
    r, g, b = image.unbind(1)
    wr, wg, wb = GREY_WEIGHTS
    return (wr * r + wg * g + wb * b)[:, None]


def _blend(image, factor, other):
    return _clamp01(factor * image + (1 - factor) * other)


def _brightness(image, delta, *_):
    return _clamp01((1 + _per_image(delta)) * image)


def _contrast(image, delta, *_):
    return _blend(image, 1 + _per_image(delta), _grey(image).mean((1, 2, 3), keepdim=True))


def _saturation(image, delta, sign, *_):
    return _blend(image, 1 + sign * _per_image(delta), _grey(image))


def _hue(image, delta, *_):
    r, g, b = image.unbind(1)
    most, least = torch.maximum(torch.maximum(r, g), b), torch.minimum(torch.minimum(r, g), b)
    chroma = most - least
    safe = torch.where(chroma > 0, chroma, 1)
    sixths = torch.where(r == most, (g - b) / safe, torch.where(g == most, (b - r) / safe + 2, (r - g) / safe + 4))
    turned = sixths + 6 * delta[..., None]
    turned = torch.where(turned < 0, turned + 6, turned)
    turned = torch.where(turned >= 6, turned - 6, turned)
    trapezia = (_clamp01((turned - 3).abs() - 1), _clamp01(2 - (turned - 2).abs()), _clamp01(2 - (turned - 4).abs()))
    # a grey has no hue: it stays, and so does its gradient
    return torch.where(chroma[:, None] > 0, torch.stack([least + chroma * each for each in trapezia], 1), image)


def _gamma(image, delta, *_):
    exponent = 1 + _per_image(delta)
    safe = image.clamp_min(2.0**-126)  # the slope at 0 may be infinite: it counts as 0
    return torch.where(image < 2.0**-126, (exponent == 0).to(image.dtype), _clamp01(safe**exponent))


def _background(image, delta, source, *colour):
    if source == Source.GREY:
        blend = image
    else:
        background = image[:, :, :1, :1] if source == Source.CORNER else image.new_tensor(colour)[:, None, None]
        direction = 1 - background
        square = direction.square().sum(-3, keepdim=True)
        slope = direction * torch.where(square > 0, 1 / torch.where(square > 0, square, 1), 0)
        blend = _clamp01((slope * (image - background)).sum(1, keepdim=True))
    return blend + (1 - blend) * _per_image(delta)


def _affine(image, delta, mask, outside, *_):
    height, width = image.shape[2:]
    wide, dtype = delta.double(), image.dtype
    bits = range(len(AFFINE_PARAMETERS))
    given = [bit for bit in bits if int(mask) >> bit & 1]
    angle, shift_x, shift_y, scale, tilt_x, tilt_y = (
        wide[:, given.index(bit)] if bit in given else wide.new_zeros(len(wide)) for bit in bits
    )
    degree = math.pi / 180
    cosine, sine, zoom = (angle * degree).cos(), (angle * degree).sin(), 1 + scale
    shear_x, shear_y = (tilt_x * degree).tan(), (tilt_y * degree).tan()
    both = 1 + shear_x * shear_y
    xx, xy = (both * cosine - shear_x * sine) / zoom, (-both * sine - shear_x * cosine) / zoom
    yx, yy = (sine - shear_y * cosine) / zoom, (cosine + shear_y * sine) / zoom
    centre_x, centre_y = (width - 1) * 0.5, (height - 1) * 0.5
    mid_x, mid_y = centre_x + shift_x * width, centre_y + shift_y * height
    x = torch.arange(width, dtype=dtype, device=image.device)
    y = torch.arange(height, dtype=torch.float64, device=image.device)

    def place(along_x, along_y, centre, most):
        """The source of each pixel on one axis of the padded image: the neighbour before, and the distance from it."""
        start = (centre - along_x * mid_x - along_y * mid_y)[:, None] + along_y[:, None] * y
        at = start.to(dtype)[:, :, None] + along_x.to(dtype)[:, None, None] * x
        low, high = (0, most - 1) if outside == Outside.BORDER else (-1, most)
        # outside the bounds the place does not depend on delta; on them clamp would
        held = (at <= low) | (at >= high)
        at = torch.where(held, at.detach().clamp(low, high), at) + 1
        before = at.detach().to(torch.int64)
        return before, at - before

    left, right = place(xx, xy, centre_x, width)
    top, down = place(yx, yy, centre_y, height)
    padded = functional.pad(image, (1, 2, 1, 2)).flatten(2)
    row = width + 3
    first = (top * row + left).flatten(1)[:, None].expand(-1, image.shape[1], -1)
    a, b, c, d = (padded.gather(2, first + step).view(image.shape) for step in (0, 1, row, row + 1))
    right, down = right[:, None], down[:, None]
    upper, lower = a + right * (b - a), c + right * (d - c)
    return upper + down * (lower - upper)


def _add(image, delta, clamped, *_):
    moved = image + delta.reshape(image.shape)
    return _clamp01(moved) if clamped else moved


def _impulse(image, delta, fraction, *_):
    u, half = delta.reshape(image.shape), torch.tensor(fraction, dtype=delta.dtype) / 2
    return torch.where(u < half, 0, torch.where(u >= 1 - half, 1, image))


def _shot(image, delta, rate, *_):
    """The Poisson quantile of delta, by summing its terms in double."""
    u, mean = delta.detach().reshape(image.shape).double(), (rate * image.detach().double()).clamp_max(700)
    term = (-mean).exp()
    sum_, count, n = term.clone(), torch.zeros_like(term), 0
    while bool((short := (sum_ <= u) & (term > 0)).any()):
        n += 1
        term = torch.where(short, term * mean / n, term)
        sum_ = torch.where(short, sum_ + term, sum_)
        count = torch.where(short, n, count)
    return _clamp01((count / rate).to(image.dtype))


def _blur(image, delta, radius, *_):
    radius, sigma = int(radius), delta.double()
    j = torch.arange(radius + 1, device=image.device)
    safe = torch.where(sigma > 0, sigma, 1)
    bell = torch.where((sigma > 0) | (j == 0), torch.exp(-0.5 * j**2 / safe**2), 0)
    weights = (bell / (bell.sum(1, keepdim=True) + bell[:, 1:].sum(1, keepdim=True))).to(image.dtype)
    for axis in (3, 2):
        size = image.shape[axis]
        padded = functional.pad(image, (radius, radius, 0, 0) if axis == 3 else (0, 0, radius, radius), mode="reflect")
        w = weights[:, :, None, None, None]
        image = w[:, 0] * padded.narrow(axis, radius, size)
        for step in range(1, radius + 1):
            image = image + w[:, step] * (
                padded.narrow(axis, radius - step, size) + padded.narrow(axis, radius + step, size)
            )
    return image


def _fog(image, delta, *_):
    strength, nodes = _per_image(delta[:, :1]), delta[:, 1:]
    height, width = image.shape[2:]
    field, begin = 0, 0
    for octave, side in enumerate(LATTICES):
        lattice = nodes[:, begin : begin + side * side].view(-1, side, side)
        begin += side * side
        weight = 2 ** (len(LATTICES) - 1 - octave) / (2 ** len(LATTICES) - 1)
        row, weight_y = _stations(height, side - 1, image)
        left, weight_x = _stations(width, side - 1, image)
        rows = lattice[:, row] + weight_y[:, None] * (lattice[:, row + 1] - lattice[:, row])
        field = field + weight * (rows[:, :, left] + weight_x * (rows[:, :, left + 1] - rows[:, :, left]))
    most = image.amax((1, 2, 3), keepdim=True)
    both = most + strength
    attenuation = torch.where(both > 0, most / torch.where(both > 0, both, 1), 1)
    return _clamp01((image + strength * field[:, None]) * attenuation)


def _stations(size, cells, image):
    """For each pixel of an axis the lattice's node before it and the weight of the next."""
    pitch = torch.tensor(cells, dtype=image.dtype) / (size - 1) if size > 1 else 0.0
    at = torch.arange(size, dtype=image.dtype, device=image.device) * pitch
    node = at.to(torch.int64).clamp_max(cells - 1)
    return node, at - node


_TRANSFORMS = {
    Transform.BRIGHTNESS: _brightness, Transform.CONTRAST: _contrast, Transform.SATURATION: _saturation,
    Transform.HUE: _hue, Transform.GAMMA: _gamma, Transform.BACKGROUND: _background, Transform.AFFINE: _affine,
    Transform.ADD: _add, Transform.IMPULSE: _impulse, Transform.SHOT: _shot, Transform.BLUR: _blur, Transform.FOG: _fog,
}  # fmt: skip
