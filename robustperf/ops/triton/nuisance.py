import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from robustperf.ops.program import AFFINE_PARAMETERS, Outside, Source, Transform, channels_out, steps_of
from robustperf.ops.triton.launch import launch
from robustperf.ops.triton.transforms import AFFINE, CONTRAST, FOG, grey_of, transformed

DEGREE, BORDER = tl.constexpr(math.pi / 180), tl.constexpr(int(Outside.BORDER))
ROWS, COLUMNS = tl.constexpr(0), tl.constexpr(1)
TILE = 1024  # values


class Segment(NamedTuple):
    """Steps that run tile by tile. A head before them reads several pixels of the input for each of its own."""

    head: tuple  # (AFFINE, outside, where delta has each parameter or -1) or (BLUR, radius, axis) or empty
    begin: int  # of the head's delta
    steps: tuple  # flat: transform, channels that come in, where its delta begins, four settings, for each step
    channels: int
    channels_out: int


def segments_of(codes, parameters, channels, statistics_begin=False):
    """The program, cut where a step reads several pixels; `statistics_begin`: and where it needs image statistics."""
    segments, head, begin, steps, first = [], (), 0, [], channels

    def cut():
        if head or steps:
            segments.append(Segment(head, begin, tuple(steps), first, channels))

    for step in steps_of(codes, parameters):
        transform, settings = step.transform, step.settings
        if transform in (Transform.AFFINE, Transform.BLUR):
            heads = [(transform, int(settings[0]), axis) for axis in (COLUMNS.value, ROWS.value)]
            if transform == Transform.AFFINE:
                bits = [int(settings[0]) >> bit & 1 for bit in range(len(AFFINE_PARAMETERS))]
                heads = [(transform, int(settings[1]), *(sum(bits[:b]) if bits[b] else -1 for b in range(len(bits))))]
            for each in heads:
                cut()
                head, begin, steps, first = each, step.offset, [], channels
            continue
        if statistics_begin and needs_image_statistics(transform, settings[0]):
            cut()
            head, begin, steps, first = (), 0, [], channels
        steps += [transform, channels, step.offset, *settings]
        channels = 3 if transform == Transform.BACKGROUND else channels
    cut()
    return segments


def needs_image_statistics(transform, setting):
    return transform in (Transform.CONTRAST, Transform.FOG) or (
        transform == Transform.BACKGROUND and setting == Source.CORNER
    )


def nuisance(x, delta, codes, parameters):
    shape = delta.shape[0], x.shape[0], channels_out(codes, x.shape[1]), *x.shape[2:]
    out = torch.empty(shape, dtype=x.dtype, device=x.device)
    transform_into(out, x, delta, codes, parameters)
    return out


def transform_into(out, x, delta, codes, parameters):
    if math.prod(x.shape[1:]) >= 2**31 or math.prod(out.shape[2:]) >= 2**31:  # places are counted in 32 bits
        raise ValueError(f"x: expected images of fewer than 2^31 values, got shape {list(x.shape)}")
    segments, image, delta = segments_of(codes, parameters, x.shape[1]), x.contiguous(), delta.contiguous()
    for segment in segments[:-1]:
        image = run_segment(segment, image, delta)
    run_segment(segments[-1], image, delta, out)


def run_segment(segment, image, delta, out=None):
    """`image`: [draws or 1, batch, channels, height, width] or one dimension less."""
    (draws, batch, dim), (channels, height, width) = delta.shape, image.shape[-3:]
    if out is None:
        out = image.new_empty(draws, batch, segment.channels_out, height, width)
    constants = constants_of(segment, height * width)
    parts = 1 if any(constants["STATISTICS"]) else triton.cdiv(height * width, constants["BLOCK"])
    images = image.numel() // (channels * height * width)
    launch(
        nuisance_kernel,
        draws * batch * parts,
        image,
        image,
        delta,
        out,
        images,
        dim,
        height,
        width,
        parts,
        segment.begin,
        **constants,
    )
    return out


def constants_of(segment, pixels):
    """What a segment's kernels are compiled for."""
    steps, channel_block = segment.steps, triton.next_power_of_2(max(segment.channels, segment.channels_out))
    return {"HEAD": segment.head, "STEPS": steps, "COUNT": len(steps) // 7, "FIRST": segment.channels,
            "STATISTICS": tuple(needs_image_statistics(steps[s], steps[s + 3]) for s in range(0, len(steps), 7)),
            "LAST": segment.channels_out, "CHANNELS": channel_block,
            "BLOCK": min(triton.next_power_of_2(pixels), max(TILE // channel_block, 16))}  # fmt: skip


@triton.jit
def parameter(delta, place: tl.constexpr):
    """[1, 1] float64: one of an affine step's, 0 where delta has none."""
    nothing = tl.zeros((1, 1), tl.float64)
    return nothing + tl.load(delta + place).to(tl.float64) if place >= 0 else nothing


@triton.jit
def warp_of(delta, height, width, HEAD: tl.constexpr):
    """The inverse map of an affine step: xx, xy, yx, yy, mid_x, mid_y, centre_x, centre_y of csrc/core/affine.hpp, then
    cosine, sine, zoom and the tangents of the shears; [1, 1] float64."""
    angle, zoom = parameter(delta, HEAD[2]) * DEGREE, 1.0 + parameter(delta, HEAD[5])
    cosine, sine = tl.cos(angle), tl.sin(angle)
    tilt_x, tilt_y = parameter(delta, HEAD[6]) * DEGREE, parameter(delta, HEAD[7]) * DEGREE
    shear_x, shear_y = tl.sin(tilt_x) / tl.cos(tilt_x), tl.sin(tilt_y) / tl.cos(tilt_y)
    both = 1.0 + shear_x * shear_y
    xx, xy = (both * cosine - shear_x * sine) / zoom, (-both * sine - shear_x * cosine) / zoom
    yx, yy = (sine - shear_y * cosine) / zoom, (cosine + shear_y * sine) / zoom
    centre_x, centre_y = tl.zeros_like(zoom) + (width - 1) * 0.5, tl.zeros_like(zoom) + (height - 1) * 0.5
    mid_x = centre_x + parameter(delta, HEAD[3]) * width
    mid_y = centre_y + parameter(delta, HEAD[4]) * height
    return xx, xy, yx, yy, mid_x, mid_y, centre_x, centre_y, cosine, sine, zoom, shear_x, shear_y


@triton.jit
def placed(along_x, along_y, mid_x, mid_y, centre, i, size, width, outside: tl.constexpr, T: tl.constexpr):
    """Where the pixels come from on one axis, for T's rounding: the pixel before, the distance from it, and whether
    that depends on delta (not where it is clamped to a bound)."""
    start = (centre - along_x * mid_x - along_y * mid_y) + along_y * (i // width).to(tl.float64)
    at = start.to(T) + along_x.to(T) * (i % width).to(T)
    low, high = (0.0, size - 1.0) if outside == BORDER else (-1.0, size * 1.0)
    free = (at > low) & (at < high)
    at = tl.where(at > low, tl.where(at < high, at, high), low) + 1.0
    before = at.to(tl.int32)
    return before - 1, at - before.to(T), free


@triton.jit
def pixel_at(plane, y, x, height, width, there):
    """Zeros outside."""
    inside = there & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return tl.load(plane + y * width + x, mask=inside, other=0.0)


@triton.jit
def blur_weight(j, sigma):
    """Of a tap at distance j, not yet divided by the sum of all."""
    safe = tl.where(sigma > 0.0, sigma, 1.0)
    return tl.where(j == 0, 1.0, tl.where(sigma > 0.0, tl.exp(-0.5 * j * j / (safe * safe)), 0.0))


@triton.jit
def mirrored(at, size):
    at = tl.abs(at)
    return tl.where(at >= size, 2 * (size - 1) - at, at)


@triton.jit
def taken(source, delta, i, height, width, channels: tl.constexpr, HEAD: tl.constexpr, CHANNELS: tl.constexpr):
    """The tile [CHANNELS, BLOCK] of the pixels `i` [1, BLOCK] that the segment's head makes of the image."""
    T: tl.constexpr = source.dtype.element_ty
    pixels = height * width
    ch = tl.arange(0, CHANNELS)[:, None]
    there, plane = (ch < channels) & (i < pixels), source + ch * pixels
    if len(HEAD) == 0:
        v = tl.load(plane + i, mask=there, other=0.0)
    elif HEAD[0] == AFFINE:
        xx, xy, yx, yy, mid_x, mid_y, centre_x, centre_y, _, _, _, _, _ = warp_of(delta, height, width, HEAD)
        left, right, _ = placed(xx, xy, mid_x, mid_y, centre_x, i, width, width, HEAD[1], T)
        top, down, _ = placed(yx, yy, mid_x, mid_y, centre_y, i, height, width, HEAD[1], T)
        a, b = pixel_at(plane, top, left, height, width, there), pixel_at(plane, top, left + 1, height, width, there)
        c = pixel_at(plane, top + 1, left, height, width, there)
        d = pixel_at(plane, top + 1, left + 1, height, width, there)
        upper, lower = a + right * (b - a), c + right * (d - c)
        v = upper + down * (lower - upper)
    else:
        sigma = tl.load(delta).to(tl.float64)
        size, stride = (width, 1) if HEAD[2] == COLUMNS else (height, width)
        at = i % width if HEAD[2] == COLUMNS else i // width
        weight_sum = blur_weight(0, sigma)
        for j in range(1, HEAD[1] + 1):
            weight_sum += 2.0 * blur_weight(j, sigma)
        v = (1.0 / weight_sum).to(T) * tl.load(plane + i, mask=there, other=0.0)
        for j in range(1, HEAD[1] + 1):
            before = tl.load(plane + i + (mirrored(at - j, size) - at) * stride, mask=there, other=0.0)
            behind = tl.load(plane + i + (mirrored(at + j, size) - at) * stride, mask=there, other=0.0)
            v += (blur_weight(j, sigma) / weight_sum).to(T) * (before + behind)
    return v


@triton.jit
def stepped(v, statistics, delta, i, pixels, height, width, s: tl.constexpr, STEPS: tl.constexpr):
    """A tile after step s; `statistics` [CHANNELS, 32]: those that each step needs."""
    column = tl.arange(0, 32)[None, :]
    statistic = tl.sum(tl.where(column == s, statistics, 0.0), 1)[:, None]
    return transformed(
        v,
        statistic,
        delta + STEPS[7 * s + 2],
        i,
        pixels,
        height,
        width,
        STEPS[7 * s],
        STEPS[7 * s + 1],
        STEPS[7 * s + 3],
        STEPS[7 * s + 4],
        STEPS[7 * s + 5],
        STEPS[7 * s + 6],
    )


@triton.jit
def statistic_of(s: tl.constexpr, statistics, source, delta, begin, height, width, HEAD: tl.constexpr,
                 STEPS: tl.constexpr, FIRST: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """The statistic that step s needs of its input image, [CHANNELS, 1]: the mean grey, the maximum or the corner's
    colour."""
    kind: tl.constexpr = STEPS[7 * s]
    channels: tl.constexpr = STEPS[7 * s + 1]
    pixels = height * width
    ch, lane = tl.arange(0, CHANNELS)[:, None], tl.arange(0, BLOCK)[None, :]
    seen = tl.full((CHANNELS, BLOCK), float("-inf") if kind == FOG else 0.0, tl.float64)
    for first in range(0, pixels, BLOCK):
        i = first + lane
        v = taken(source, delta + begin, i, height, width, FIRST, HEAD, CHANNELS)
        for before in tl.static_range(s):
            v = stepped(v, statistics, delta, i, pixels, height, width, before, STEPS)
        if kind == CONTRAST:
            seen += tl.where(i < pixels, grey_of(v, channels), 0.0).to(tl.float64)
        elif kind == FOG:
            seen = tl.maximum(seen, tl.where((ch < channels) & (i < pixels), v, float("-inf")).to(tl.float64))
        else:
            seen = tl.where(i == 0, v.to(tl.float64), seen)
    if kind == FOG:
        statistic = tl.max(tl.max(seen, 1), 0) + tl.zeros((CHANNELS, 1), tl.float64)
    else:
        statistic = tl.sum(seen, 1)[:, None] / (pixels if kind == CONTRAST else 1)
    return statistic.to(source.dtype.element_ty)


@triton.jit
def nuisance_kernel(
    source,  # [images, channels, height, width] float32 or float64
    delta,   # [draws, batch, dim]
    out,     # [draws, batch, channels, height, width]
    images,  # batch, or draws * batch where each draw has its own
    dim, height, width, parts, begin,  # parts of an image; begin of the head's delta
    HEAD: tl.constexpr, STEPS: tl.constexpr, STATISTICS: tl.constexpr, COUNT: tl.constexpr,
    FIRST: tl.constexpr, LAST: tl.constexpr,  # channels that come in and go out
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = out.dtype.element_ty
    row, part = tl.program_id(0).to(tl.int64) // parts, tl.program_id(0) % parts
    pixels = height * width
    source += row % images * FIRST * pixels
    out += row * LAST * pixels
    delta += row * dim
    ch, lane = tl.arange(0, CHANNELS)[:, None], tl.arange(0, BLOCK)[None, :]
    statistics = tl.zeros((CHANNELS, 32), T)
    for s in tl.static_range(COUNT):
        if STATISTICS[s]:
            this = statistic_of(s, statistics, source, delta, begin, height, width, HEAD, STEPS, FIRST, CHANNELS, BLOCK)
            statistics = tl.where(tl.arange(0, 32)[None, :] == s, this, statistics)
    for first in range(part * BLOCK, tl.where(parts == 1, pixels, tl.minimum(part * BLOCK + BLOCK, pixels)), BLOCK):
        i = first + lane
        v = taken(source, delta + begin, i, height, width, FIRST, HEAD, CHANNELS)
        for s in tl.static_range(COUNT):
            v = stepped(v, statistics, delta, i, pixels, height, width, s, STEPS)
        tl.store(out + ch * pixels + i, v, mask=(ch < LAST) & (i < pixels))
