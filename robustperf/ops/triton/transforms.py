"""What a step of a nuisance program does to a tile: the values [CHANNELS, BLOCK] of some pixels, with all channels.
The arithmetic is that of csrc/core/colour.hpp and its neighbours."""

import triton
import triton.language as tl

from robustperf.ops.program import GREY_WEIGHTS, LATTICES, Source, Transform
from robustperf.ops.triton.elementary import exp_of, log_of, quotient

BRIGHTNESS, CONTRAST, SATURATION, HUE, GAMMA, BACKGROUND, AFFINE, ADD, IMPULSE, SHOT, BLUR, FOG = (
    tl.constexpr(int(transform)) for transform in Transform
)
GREY, CORNER = tl.constexpr(int(Source.GREY)), tl.constexpr(int(Source.CORNER))
RED, GREEN, BLUE = (tl.constexpr(weight) for weight in GREY_WEIGHTS)
OCTAVES, LEAST = tl.constexpr(len(LATTICES)), tl.constexpr(2.0**-126)
COARSEST = tl.constexpr(2 ** (len(LATTICES) - 1) / (2 ** len(LATTICES) - 1))  # the weight of fog's first octave


@triton.jit
def clamp01(v):
    """Clamped to [0, 1]; NaN stays."""
    return tl.where(v > 1.0, 1.0, tl.where(v > 0.0, v, tl.where(v <= 0.0, 0.0, v)))


@triton.jit
def channel(v, number: tl.constexpr):
    """[1, BLOCK]: one channel of a tile."""
    return tl.sum(tl.where(tl.arange(0, v.shape[0])[:, None] == number, v, 0.0), 0)[None, :]


@triton.jit
def of_channels(v, red, green, blue):
    """A tile in the shape of `v` of three channels."""
    ch = tl.arange(0, v.shape[0])[:, None]
    return tl.where(ch == 0, red, tl.where(ch == 1, green, tl.where(ch == 2, blue, tl.zeros_like(v))))


@triton.jit
def grey_of(v, channels: tl.constexpr):
    """[1, BLOCK]: torchvision's weights; grey images as they are."""
    if channels == 3:
        return channel(v, 0) * RED + channel(v, 1) * GREEN + channel(v, 2) * BLUE
    else:
        return channel(v, 0)


@triton.jit
def hexcone_of(v):
    """Least channel, chroma, 1 / chroma, the difference of two channels that makes the hue, the hue in sixths of a
    turn, and whether red or else green is the greatest; all [1, BLOCK]."""
    r, g, b = channel(v, 0), channel(v, 1), channel(v, 2)
    most, least = tl.maximum(tl.maximum(r, g), b), tl.minimum(tl.minimum(r, g), b)
    chroma = most - least
    inverse = quotient(tl.full(chroma.shape, 1.0, chroma.dtype), tl.maximum(chroma, LEAST))
    red, green = r == most, g == most
    difference = tl.where(red, g - b, tl.where(green, b - r, r - g))
    sixths = difference * inverse + tl.where(red, 0.0, tl.where(green, 2.0, 4.0))
    return least, chroma, inverse, difference, sixths, red, green


@triton.jit
def wrapped(sixths):
    """Brought into [0, 6)."""
    raised = tl.where(sixths < 0.0, sixths + 6.0, sixths)
    return tl.where(raised >= 6.0, raised - 6.0, raised)


@triton.jit
def trapezia(v, h):
    """The fraction of the chroma in each channel for a hue of h sixths."""
    red, green, blue = tl.abs(h - 3.0) - 1.0, 2.0 - tl.abs(h - 2.0), 2.0 - tl.abs(h - 4.0)
    return of_channels(v, clamp01(red), clamp01(green), clamp01(blue))


@triton.jit
def power_of(x, gamma):
    safe = tl.maximum(x, LEAST)
    value = exp_of(gamma * log_of(safe))
    return tl.where(x < LEAST, tl.where(gamma == 0.0, 1.0, 0.0), value)


@triton.jit
def slope_of(v, background):
    """blend = <slope, pixel - background>, 0 where the two colours are equal; `background` is [CHANNELS, 1]."""
    ch = tl.arange(0, v.shape[0])[:, None]
    direction = tl.where(ch < 3, 1.0 - background, 0.0)
    square = channel(direction * direction, 0) + channel(direction * direction, 1) + channel(direction * direction, 2)
    inverse = tl.where(square > 0.0, quotient(square * 0.0 + 1.0, tl.where(square > 0.0, square, 1.0)), 0.0)
    return direction * inverse, inverse


@triton.jit
def background_of(v, statistic, source: tl.constexpr, red: tl.constexpr, green: tl.constexpr, blue: tl.constexpr):
    """[CHANNELS, 1]: the colour that BACKGROUND replaces."""
    if source == CORNER:
        return statistic
    else:
        return of_channels(statistic, red, green, blue)


@triton.jit
def poisson_quantile(mean, u):
    """The least n with P(Poisson(mean) <= n) > u, in float64."""
    mean = tl.minimum(mean, 700.0)
    n = tl.zeros_like(mean)
    term = tl.exp(-mean)
    total = term
    while tl.max(tl.max(((total <= u) & (term > 0.0)).to(tl.int32), 1), 0) > 0:
        short = (total <= u) & (term > 0.0)
        n = tl.where(short, n + 1.0, n)
        term = tl.where(short, term * (mean / tl.maximum(n, 1.0)), term)
        total = tl.where(short, total + term, total)
    return n


@triton.jit
def fog_station(at, size, cells: tl.constexpr, T: tl.constexpr):
    """The lattice's node before pixel `at` of an axis, and the weight of the next."""
    last = tl.maximum(size - 1, 1) + tl.zeros(at.shape, tl.int32)
    pitch = tl.where(size > 1, quotient(tl.full(at.shape, cells, T), last.to(T)), 0.0)
    place = at.to(T) * pitch
    node = tl.minimum(place.to(tl.int32), cells - 1)
    return node, place - node.to(T)


@triton.jit
def fog_octave(nodes, i, there, height, width, cells: tl.constexpr, T: tl.constexpr):
    """[1, BLOCK]: bilinear between the nodes of one lattice."""
    row, down = fog_station(i // width, height, cells, T)
    left, right = fog_station(i % width, width, cells, T)
    node = nodes + row * (cells + 1) + left
    a, b = tl.load(node, mask=there, other=0.0), tl.load(node + 1, mask=there, other=0.0)
    c = tl.load(node + cells + 1, mask=there, other=0.0)
    d = tl.load(node + cells + 2, mask=there, other=0.0)
    upper, lower = a + down * (c - a), b + down * (d - b)
    return upper + right * (lower - upper)


@triton.jit
def fog_field(nodes, i, there, height, width, T: tl.constexpr):
    """[1, BLOCK]: octaves of random numbers, each twice as fine as the one before and of half its weight."""
    field = tl.zeros(i.shape, T)
    for octave in tl.static_range(OCTAVES):
        field += fog_octave(nodes, i, there, height, width, 2 << octave, T) * (COARSEST / (1 << octave))
        nodes += (1 + (2 << octave)) * (1 + (2 << octave))
    return field


@triton.jit
def attenuation_of(most, strength):
    both = most + strength
    return tl.where(both > 0.0, quotient(most, tl.where(both > 0.0, both, 1.0)), 1.0)


@triton.jit
def transformed(v, statistic, delta, i, pixels, height, width, transform: tl.constexpr, channels: tl.constexpr,
                s0: tl.constexpr, s1: tl.constexpr, s2: tl.constexpr, s3: tl.constexpr):  # fmt: skip
    """A tile `v` after one step. `delta`: of this step; `i` [1, BLOCK]: the pixels' indices; `statistic` [CHANNELS, 1]:
    the image statistic that the step needs; s0 ... s3: its settings."""
    T: tl.constexpr = v.dtype
    ch = tl.arange(0, v.shape[0])[:, None]
    there = (ch < channels) & (i < pixels)
    if transform == BRIGHTNESS:
        v = clamp01((1.0 + tl.load(delta)) * v)
    elif transform == CONTRAST:
        factor = 1.0 + tl.load(delta)
        v = clamp01(factor * v + (1.0 - factor) * statistic)
    elif transform == SATURATION:
        factor = 1.0 + s0 * tl.load(delta)
        v = clamp01(factor * v + (1.0 - factor) * grey_of(v, channels))
    elif transform == HUE:
        least, chroma, _, _, sixths, _, _ = hexcone_of(v)
        turned = least + chroma * trapezia(v, wrapped(sixths + 6.0 * tl.load(delta)))
        v = tl.where(chroma > 0.0, turned, v)
    elif transform == GAMMA:
        v = clamp01(power_of(v, 1.0 + tl.load(delta)))
    elif transform == BACKGROUND:
        if s0 == GREY:
            blend = channel(v, 0)
        else:
            background = background_of(v, statistic, s0, s1, s2, s3)
            slope, _ = slope_of(v, background)
            away = slope * (v - background)
            blend = clamp01(channel(away, 0) + channel(away, 1) + channel(away, 2))
        colour = tl.load(delta + ch, mask=ch < 3, other=0.0)
        v = blend + (1.0 - blend) * colour
    elif transform == ADD:
        v = v + tl.load(delta + ch * pixels + i, mask=there, other=0.0)
        if s0 != 0:
            v = clamp01(v)
    elif transform == IMPULSE:
        u = tl.load(delta + ch * pixels + i, mask=there, other=0.5)
        half = tl.full(u.shape, s0, T) * 0.5
        v = tl.where(u < half, 0.0, tl.where(u >= 1.0 - half, 1.0, v))
    elif transform == SHOT:
        u = tl.load(delta + ch * pixels + i, mask=there, other=0.0).to(tl.float64)
        mean = tl.where(there, v.to(tl.float64), 0.0) * s0
        v = clamp01((poisson_quantile(mean, u) / s0).to(T))
    elif transform == FOG:
        strength = tl.load(delta)
        field = fog_field(delta + 1, i, i < pixels, height, width, T)
        v = clamp01((v + strength * field) * attenuation_of(statistic, strength + tl.zeros_like(statistic)))
    return v
