"""The backward pass of a step of a nuisance program, tile by tile; see transforms.py. A clamp passes gradients on its
bounds."""

import triton
import triton.language as tl

from robustperf.ops.triton.elementary import log_of, quotient
from robustperf.ops.triton.transforms import (
    ADD,
    BACKGROUND,
    BLUE,
    BRIGHTNESS,
    COARSEST,
    CONTRAST,
    FOG,
    GAMMA,
    GREEN,
    GREY,
    HUE,
    IMPULSE,
    LEAST,
    OCTAVES,
    RED,
    SATURATION,
    SHOT,
    attenuation_of,
    background_of,
    channel,
    clamp01,
    fog_field,
    fog_station,
    grey_of,
    hexcone_of,
    of_channels,
    power_of,
    slope_of,
    trapezia,
    wrapped,
)


@triton.jit
def clamp_backward(v, grad):
    """The gradient of a clamp's input v, from that of its output."""
    return tl.where((v < 0.0) | (v > 1.0), 0.0, grad)


@triton.jit
def over_channels(v):
    """[1, BLOCK]"""
    return tl.sum(v, 0)[None, :]


@triton.jit
def falling(d):
    """The slope of clamp01(2 - |d|)."""
    away = tl.abs(d)
    return tl.where((away > 1.0) & (away < 2.0), tl.where(d < 0.0, 1.0, -1.0), 0.0).to(d.dtype)


@triton.jit
def hue_backward(v, g, shift):
    """The gradients in the tile and, [1, BLOCK], in the shift."""
    least, chroma, inverse, difference, sixths, red, green = hexcone_of(v)
    r, b = channel(v, 0), channel(v, 2)
    h = wrapped(sixths + shift)
    d_hue = chroma * (channel(g, 1) * falling(h - 2.0) + channel(g, 2) * falling(h - 4.0)
                      - channel(g, 0) * falling(h - 3.0))  # fmt: skip
    slope = d_hue * inverse
    d_chroma = over_channels(g * trapezia(v, h)) - slope * difference * inverse
    d_least = over_channels(g) - d_chroma
    to_r = tl.where(red, d_chroma, tl.where(green, -slope, slope))
    to_g = tl.where(red, slope, tl.where(green, d_chroma, -slope))
    to_b = tl.where(red, -slope, tl.where(green, slope, d_chroma))
    least_r = r == least
    least_b = ~least_r & (channel(v, 1) != least) & (b == least)
    to_r += tl.where(least_r, d_least, 0.0)
    to_g += tl.where(least_r | least_b, 0.0, d_least)
    to_b += tl.where(least_b, d_least, 0.0)
    # a grey has no hue: it stays, and so does its gradient
    return tl.where(chroma > 0.0, of_channels(v, to_r, to_g, to_b), g), d_hue


@triton.jit
def fog_octave_backward(g, d_nodes, i, there, height, width, cells: tl.constexpr):
    """Adds the gradient `g` [1, BLOCK] of an octave to that of the lattice's nodes."""
    row, down = fog_station(i // width, height, cells, g.dtype)
    left, right = fog_station(i % width, width, cells, g.dtype)
    node = d_nodes + row * (cells + 1) + left
    tl.atomic_add(node, (1.0 - down) * (1.0 - right) * g, mask=there, sem="relaxed")
    tl.atomic_add(node + 1, (1.0 - down) * right * g, mask=there, sem="relaxed")
    tl.atomic_add(node + cells + 1, down * (1.0 - right) * g, mask=there, sem="relaxed")
    tl.atomic_add(node + cells + 2, down * right * g, mask=there, sem="relaxed")


@triton.jit
def transformed_backward(v, g, statistic, delta, d_delta, i, pixels, height, width, transform: tl.constexpr,
                         channels: tl.constexpr, s0: tl.constexpr, s1: tl.constexpr, s2: tl.constexpr,
                         s3: tl.constexpr):  # fmt: skip
    """From the gradient `g` of a step's result, that of its input `v`, and two tiles to be added up over the pixels:
    the gradient in the step's delta (for a colour by channels, else over them too) and in `statistic`. The gradient in
    a pixel's own delta, or in fog's nodes, is added to d_delta here."""
    T: tl.constexpr = v.dtype
    ch = tl.arange(0, v.shape[0])[:, None]
    there = (ch < channels) & (i < pixels)
    d = tl.zeros_like(v)
    d_statistic = tl.zeros_like(v)
    if transform == BRIGHTNESS:
        factor = 1.0 + tl.load(delta)
        b = clamp_backward(factor * v, g)
        d, g = b * v, factor * b
    elif transform == CONTRAST:
        factor = 1.0 + tl.load(delta)
        b = clamp_backward(factor * v + (1.0 - factor) * statistic, g)
        d, d_statistic, g = b * (v - statistic), (1.0 - factor) * b, factor * b
    elif transform == SATURATION:
        factor, grey = 1.0 + s0 * tl.load(delta), grey_of(v, channels)
        b = clamp_backward(factor * v + (1.0 - factor) * grey, g)
        d = s0 * b * (v - grey)
        g = factor * b + of_channels(v, RED, GREEN, BLUE) * ((1.0 - factor) * over_channels(b))
    elif transform == HUE:
        g, d_hue = hue_backward(v, g, 6.0 * tl.load(delta))
        d = tl.where(ch == 0, 6.0 * d_hue, 0.0)
    elif transform == GAMMA:
        gamma, safe = 1.0 + tl.load(delta), tl.maximum(v, LEAST)
        value = power_of(safe, gamma)
        b = tl.where(v < LEAST, 0.0, clamp_backward(value, g))
        d, g = b * value * log_of(safe), quotient(b * gamma * value, safe)
    elif transform == BACKGROUND:
        colour = tl.load(delta + ch, mask=ch < 3, other=0.0)
        d_blend = over_channels(g * (1.0 - colour))
        if s0 == GREY:
            d, g = (1.0 - channel(v, 0)) * g, tl.where(ch == 0, d_blend, 0.0)
        else:
            background = background_of(v, statistic, s0, s1, s2, s3)
            slope, inverse = slope_of(v, background)
            blend = over_channels(slope * (v - background))
            d = (1.0 - clamp01(blend)) * g
            d_blend = clamp_backward(blend, d_blend)
            d_statistic = d_blend * (2.0 * slope * blend - slope - inverse * (v - background))
            g = slope * d_blend
    elif transform == ADD:
        place = d_delta + ch * pixels + i
        if s0 != 0:
            g = clamp_backward(v + tl.load(delta + ch * pixels + i, mask=there, other=0.0), g)
        tl.store(place, tl.load(place, mask=there, other=0.0) + g, mask=there)
    elif transform == IMPULSE:
        u = tl.load(delta + ch * pixels + i, mask=there, other=0.5)
        half = tl.full(u.shape, s0, T) * 0.5
        g = tl.where((u < half) | (u >= 1.0 - half), 0.0, g)
    elif transform == SHOT:
        g = tl.zeros_like(v)  # counts jump
    elif transform == FOG:
        strength = tl.load(delta)
        field = fog_field(delta + 1, i, i < pixels, height, width, T)
        attenuation = attenuation_of(statistic, strength + statistic * 0.0)
        misty, both = v + strength * field, statistic + strength
        b = clamp_backward(misty * attenuation, g)
        slope = tl.where(both > 0.0, quotient(b * misty, tl.where(both > 0.0, both * both, 1.0) + b * 0.0), 0.0)
        g = b * attenuation
        d, d_statistic = g * field - slope * statistic, slope * strength
        d_field, d_nodes = strength * over_channels(g), d_delta + 1
        for octave in tl.static_range(OCTAVES):
            d_octave = d_field * (COARSEST / (1 << octave))
            fog_octave_backward(d_octave, d_nodes, i, i < pixels, height, width, 2 << octave)
            d_nodes += (1 + (2 << octave)) * (1 + (2 << octave))
    return g, d, d_statistic
