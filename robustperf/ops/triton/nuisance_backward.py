import torch
import triton
import triton.language as tl

from robustperf.ops.program import Transform
from robustperf.ops.triton.launch import launch
from robustperf.ops.triton.nuisance import (
    COLUMNS,
    DEGREE,
    blur_weight,
    constants_of,
    pixel_at,
    placed,
    run_segment,
    segments_of,
    statistic_of,
    stepped,
    taken,
    warp_of,
)
from robustperf.ops.triton.transforms import (
    ADD,
    BACKGROUND,
    BLUE,
    CONTRAST,
    FOG,
    GREEN,
    IMPULSE,
    RED,
    SHOT,
    of_channels,
)
from robustperf.ops.triton.transforms_backward import transformed_backward


def nuisance_backward(grad, x, delta, codes, parameters):
    """Sums over pixels have a fixed order. Where several pixels add to one place, in a warp or in fog's lattices, the
    order is arbitrary."""
    segments = segments_of(codes, parameters, x.shape[1], statistics_begin=True)
    delta, images = delta.contiguous(), [x.contiguous()]
    for segment in segments[:-1]:
        images.append(run_segment(segment, images[-1], delta))
    grad, grad_delta = grad.contiguous(), torch.zeros_like(delta)
    for segment, image in zip(reversed(segments), reversed(images), strict=True):
        grad = segment_backward(segment, image, delta, grad, grad_delta)
    return grad.sum(0), grad_delta


def segment_backward(segment, image, delta, grad, grad_delta):
    """The gradient of `image`, a draw each, from that of the segment's result; adds to that of delta."""
    (draws, batch, dim), (channels, height, width) = delta.shape, image.shape[-3:]
    images = image.numel() // (channels * height * width)
    shape, rows = (draws, batch, channels, height, width), draws * batch
    sizes = (images, dim, height, width, segment.begin)
    constants = constants_of(segment, height * width)
    if segment.steps:
        grad_head = grad.new_empty(shape)
        launch(nuisance_backward_kernel, rows, image, image, delta, grad, grad_head, grad_delta, *sizes, **constants)
        grad = grad_head
    if not segment.head:
        return grad
    constants = {name: constants[name] for name in ("HEAD", "FIRST", "CHANNELS", "BLOCK")}
    warps = segment.head[0] == Transform.AFFINE
    kernel = nuisance_backward_affine_kernel if warps else nuisance_backward_blur_kernel
    grad_head = grad.new_zeros(shape) if warps else grad.new_empty(shape)
    launch(kernel, rows, image, image, delta, grad, grad_head, grad_delta, *sizes, **constants)
    return grad_head


@triton.jit
def total(v):
    return tl.sum(tl.sum(v.to(tl.float64), 1), 0)


@triton.jit
def nuisance_backward_kernel(
    source,   # [images, channels, height, width] float32 or float64
    delta,    # [draws, batch, dim]
    grad,     # [draws, batch, channels, height, width], of the result
    grad_head,  # the same of the head's output
    d_delta,  # [draws, batch, dim], added to
    images, dim, height, width, begin,
    HEAD: tl.constexpr, STEPS: tl.constexpr, STATISTICS: tl.constexpr, COUNT: tl.constexpr,
    FIRST: tl.constexpr, LAST: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = delta.dtype.element_ty
    KIND: tl.constexpr = STEPS[0]
    row = tl.program_id(0).to(tl.int64)
    pixels = height * width
    source += row % images * FIRST * pixels
    grad += row * LAST * pixels
    grad_head += row * FIRST * pixels
    delta += row * dim
    d_delta += row * dim
    ch, lane = tl.arange(0, CHANNELS)[:, None], tl.arange(0, BLOCK)[None, :]
    step = tl.arange(0, 32)[None, :]
    statistics = tl.zeros((CHANNELS, 32), T)
    if STATISTICS[0]:
        first_one = statistic_of(
            0, statistics, source, delta, begin, height, width, HEAD, STEPS, FIRST, CHANNELS, BLOCK
        )
        statistics = tl.where(step == 0, first_one, statistics)
    sums, d_statistic = tl.zeros((CHANNELS, 32), tl.float64), tl.zeros((CHANNELS, BLOCK), tl.float64)
    place = tl.full((CHANNELS, BLOCK), 2147483647, tl.int32)  # of the greatest value
    for first in range(0, pixels, BLOCK):
        i = first + lane
        g = tl.load(grad + ch * pixels + i, mask=(ch < LAST) & (i < pixels), other=0.0)
        for s in tl.static_range(COUNT - 1, -1, -1):
            v = taken(source, delta + begin, i, height, width, FIRST, HEAD, CHANNELS)
            for before in tl.static_range(s):
                v = stepped(v, statistics, delta, i, pixels, height, width, before, STEPS)
            statistic = tl.sum(tl.where(step == s, statistics, 0.0), 1)[:, None]
            g, d, d_this = transformed_backward(
                v,
                g,
                statistic,
                delta + STEPS[7 * s + 2],
                d_delta + STEPS[7 * s + 2],
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
            there = (ch < (3 if STEPS[7 * s] == BACKGROUND else STEPS[7 * s + 1])) & (i < pixels)
            d = tl.where(there, d, 0.0).to(tl.float64)
            sums += tl.where(step == s, tl.sum(d, 1)[:, None], 0.0)
            if s == 0:
                d_statistic += tl.where(there, d_this, 0.0).to(tl.float64)
                if KIND == FOG:
                    place = tl.minimum(place, tl.where(there & (v == statistic), ch * pixels + i, 2147483647))
        tl.store(grad_head + ch * pixels + i, g, mask=(ch < FIRST) & (i < pixels))
    if STATISTICS[0]:
        tl.debug_barrier()
        at = tl.min(tl.min(place, 1), 0)
        back = tl.sum(d_statistic, 1)[:, None]
        for first in range(0, pixels, BLOCK):
            i = first + lane
            there = (ch < FIRST) & (i < pixels)
            if KIND == CONTRAST:
                fraction = of_channels(back, RED, GREEN, BLUE) if FIRST == 3 else back * 0.0 + 1.0
                more = fraction * total(d_statistic) / pixels + i * 0.0
            elif KIND == FOG:
                more = tl.where(ch * pixels + i == at, total(d_statistic), 0.0)
            else:
                more = tl.where(i == 0, back, 0.0)
            g = tl.load(grad_head + ch * pixels + i, mask=there, other=0.0)
            tl.store(grad_head + ch * pixels + i, g + more.to(T), mask=there)
    for s in tl.static_range(COUNT):
        own = tl.sum(tl.where(step == s, sums, 0.0), 1)
        if STEPS[7 * s] == BACKGROUND:
            to = d_delta + STEPS[7 * s + 2] + tl.arange(0, CHANNELS)
            three = tl.arange(0, CHANNELS) < 3
            tl.store(to, tl.load(to, mask=three, other=0.0) + own.to(T), mask=three)
        elif STEPS[7 * s] != ADD and STEPS[7 * s] != IMPULSE and STEPS[7 * s] != SHOT:
            to = d_delta + STEPS[7 * s + 2]
            tl.store(to, tl.load(to) + tl.sum(own, 0).to(T))


@triton.jit
def add_at(d_delta, place: tl.constexpr, value):
    if place >= 0:
        tl.store(d_delta + place, tl.load(d_delta + place) + tl.sum(tl.sum(value, 1), 0).to(d_delta.dtype.element_ty))


@triton.jit
def send_to(plane, y, x, height, width, there, value):
    inside = there & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    tl.atomic_add(plane + y * width + x, value, mask=inside, sem="relaxed")


@triton.jit
def nuisance_backward_affine_kernel(
    source, delta, grad, grad_head, d_delta,  # as above; `grad_head` is zeros
    images, dim, height, width, begin,
    HEAD: tl.constexpr, FIRST: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = delta.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    pixels = height * width
    ch, lane = tl.arange(0, CHANNELS)[:, None], tl.arange(0, BLOCK)[None, :]
    delta += row * dim + begin
    d_delta += row * dim + begin
    from_plane = source + row % images * FIRST * pixels + ch * pixels
    g_plane, to_plane = grad + row * FIRST * pixels + ch * pixels, grad_head + row * FIRST * pixels + ch * pixels
    xx, xy, yx, yy, mid_x, mid_y, centre_x, centre_y, cosine, sine, zoom, shear_x, shear_y = warp_of(
        delta, height, width, HEAD)  # fmt: skip
    # sums over the pixels of the gradients in the place (u, v), alone and times the pixel's x and y
    u = tl.zeros((1, BLOCK), tl.float64)
    ux, uy, v, vx, vy = u, u, u, u, u
    for first in range(0, pixels, BLOCK):
        i = first + lane
        there = (ch < FIRST) & (i < pixels)
        left, right, free_x = placed(xx, xy, mid_x, mid_y, centre_x, i, width, width, HEAD[1], T)
        top, down, free_y = placed(yx, yy, mid_x, mid_y, centre_y, i, height, width, HEAD[1], T)
        g = tl.load(g_plane + i, mask=there, other=0.0)
        a = pixel_at(from_plane, top, left, height, width, there)
        b = pixel_at(from_plane, top, left + 1, height, width, there)
        c = pixel_at(from_plane, top + 1, left, height, width, there)
        d = pixel_at(from_plane, top + 1, left + 1, height, width, there)
        along = tl.sum(g * ((1.0 - down) * (b - a) + down * (d - c)), 0)[None, :]
        across = tl.sum(g * ((1.0 - right) * (c - a) + right * (d - b)), 0)[None, :]
        d_u, d_v = tl.where(free_x, along, 0.0).to(tl.float64), tl.where(free_y, across, 0.0).to(tl.float64)
        x, y = (i % width).to(tl.float64), (i // width).to(tl.float64)
        u, ux, uy = u + d_u, ux + d_u * x, uy + d_u * y
        v, vx, vy = v + d_v, vx + d_v * x, vy + d_v * y
        send_to(to_plane, top, left, height, width, there, (1.0 - down) * (1.0 - right) * g)
        send_to(to_plane, top, left + 1, height, width, there, (1.0 - down) * right * g)
        send_to(to_plane, top + 1, left, height, width, there, down * (1.0 - right) * g)
        send_to(to_plane, top + 1, left + 1, height, width, there, down * right * g)
    d_xx, d_xy, d_yx, d_yy = ux - mid_x * u, uy - mid_y * u, vx - mid_x * v, vy - mid_y * v
    add_at(d_delta, HEAD[2], (d_xx * xy - d_xy * xx + d_yx * yy - d_yy * yx) * DEGREE)
    add_at(d_delta, HEAD[3], -width * (xx * u + yx * v))
    add_at(d_delta, HEAD[4], -height * (xy * u + yy * v))
    add_at(d_delta, HEAD[5], -(d_xx * xx + d_xy * xy + d_yx * yx + d_yy * yy) / zoom)
    to_x = d_xx * (shear_y * cosine - sine) - d_xy * (shear_y * sine + cosine)
    to_y = d_xx * shear_x * cosine - d_xy * shear_x * sine - d_yx * cosine + d_yy * sine
    add_at(d_delta, HEAD[6], (1.0 + shear_x * shear_x) / zoom * to_x * DEGREE)
    add_at(d_delta, HEAD[7], (1.0 + shear_y * shear_y) / zoom * to_y * DEGREE)


@triton.jit
def tap(plane, at, place, size, stride, i, there):
    """The value at `place` instead of `at` on an axis; 0 where there is none."""
    return tl.load(plane + i + (place - at) * stride, mask=there & (place >= 0) & (place < size), other=0.0)


@triton.jit
def nuisance_backward_blur_kernel(
    source, delta, grad, grad_head, d_delta,  # as above
    images, dim, height, width, begin,
    HEAD: tl.constexpr, FIRST: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = delta.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    pixels = height * width
    ch, lane = tl.arange(0, CHANNELS)[:, None], tl.arange(0, BLOCK)[None, :]
    from_plane = source + row % images * FIRST * pixels + ch * pixels
    g_plane, to_plane = grad + row * FIRST * pixels + ch * pixels, grad_head + row * FIRST * pixels + ch * pixels
    sigma = tl.load(delta + row * dim + begin).to(tl.float64)
    cube = tl.where(sigma > 0.0, sigma * sigma * sigma, 1.0)
    weight_sum, steep = blur_weight(0, sigma), 0.0 * sigma  # the sum of the weights and its slope in sigma
    for j in range(1, HEAD[1] + 1):
        weight_sum += 2.0 * blur_weight(j, sigma)
        steep += 2.0 * blur_weight(j, sigma) * j * j / cube
    sums = tl.zeros((CHANNELS, BLOCK), tl.float64)
    for first in range(0, pixels, BLOCK):
        i = first + lane
        there = (ch < FIRST) & (i < pixels)
        size, stride = (width, 1) if HEAD[2] == COLUMNS else (height, width)
        at = i % width if HEAD[2] == COLUMNS else i // width
        g, v = tl.load(g_plane + i, mask=there, other=0.0), tl.load(from_plane + i, mask=there, other=0.0)
        back = (1.0 / weight_sum).to(T) * g
        sums -= (g * v).to(tl.float64) * steep / (weight_sum * weight_sum)
        for j in range(1, HEAD[1] + 1):
            weight = blur_weight(j, sigma)
            slope = (weight * j * j / cube - weight * steep / weight_sum) / weight_sum
            last = 2 * (size - 1)
            # where this pixel was a neighbour, as it stands and mirrored at either edge
            sent = tap(g_plane, at, at - j, size, stride, i, there) + tap(g_plane, at, at + j, size, stride, i, there)
            sent += tap(g_plane, at, j - at, size, stride, i, there & (at > 0))
            sent += tap(g_plane, at, last - at - j, size, stride, i, there & (at < size - 1))
            back += (weight / weight_sum).to(T) * sent
            near, far = tl.abs(at - j), at + j
            far = tl.where(far >= size, last - far, far)
            taps = tap(from_plane, at, near, size, stride, i, there) + tap(from_plane, at, far, size, stride, i, there)
            sums += (g * taps).to(tl.float64) * slope
        tl.store(to_plane + i, back, mask=there)
    add_at(d_delta + row * dim + begin, 0, sums)
