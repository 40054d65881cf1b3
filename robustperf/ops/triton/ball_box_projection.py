import torch
import triton
import triton.language as tl

from robustperf.ops.halfspace_box_projection import NORM_CODES
from robustperf.ops.triton.box_projection import bits_of, middle_of, scale_of
from robustperf.ops.triton.launch import launch

ONE, TWO, INF = (tl.constexpr(NORM_CODES[p]) for p in (1.0, 2.0, float("inf")))


def ball_box_projection(x, delta, radius, lower, upper, norm):
    rows, dim = x.shape
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    launch(
        ball_box_projection_kernel,
        rows,
        x,
        *(tensor.contiguous() for tensor in (x, delta, radius, lower, upper)),
        out,
        dim,
        NORM=norm,
        BLOCK=min(max(triton.next_power_of_2(dim), 16), 1024),
    )
    return out


@triton.jit
def coordinates(x, delta, lower, upper, first, dim, scale, h_scale, NORM: tl.constexpr, BLOCK: tl.constexpr):
    """The sizes |delta| scale and the room h h_scale of some coordinates; none of either beyond the last one."""
    i = first + tl.arange(0, BLOCK)
    there = i < dim
    place = tl.load(x + i, mask=there, other=0).to(tl.float64)
    step = tl.load(delta + i, mask=there, other=0).to(tl.float64)
    low = tl.load(lower + i, mask=there, other=0).to(tl.float64)
    high = tl.load(upper + i, mask=there, other=0).to(tl.float64)
    size = tl.abs(step) * scale
    if NORM == TWO:
        size = tl.where(size < 3.054936363499605e-151, 0.0, size)  # 2^-500
    return size, tl.where(step > 0.0, high - place, place - low) * h_scale


@triton.jit
def squares_at(t, x, delta, lower, upper, dim, scale, h_scale, NORM: tl.constexpr, BLOCK: tl.constexpr):
    """p = 2: the sum of h^2 over the coordinates that are full at t, and of size^2 over the others."""
    saturated, slope = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    for first in range(0, dim, BLOCK):
        size, h = coordinates(x, delta, lower, upper, first, dim, scale, h_scale, NORM, BLOCK)
        rate, most = size * size, h * h
        full = t * rate >= most
        saturated += tl.where(full, most, 0.0)
        slope += tl.where(full, 0.0, rate)
    return tl.sum(saturated, 0), tl.sum(slope, 0)


@triton.jit
def root(target, x, delta, lower, upper, dim, scale, h_scale, NORM: tl.constexpr, BLOCK: tl.constexpr):
    """p = 2: the t with the norm's square `target`, by Newton's method from below; infinite for the corner."""
    corner, slopes = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    for first in range(0, dim, BLOCK):
        size, h = coordinates(x, delta, lower, upper, first, dim, scale, h_scale, NORM, BLOCK)
        corner += tl.where(size > 0.0, h * h, 0.0)
        slopes += tl.where(h > 0.0, size * size, 0.0)
    mass = tl.sum(corner, 0)
    going = mass >= target
    t = tl.where(going, target / tl.sum(slopes, 0), float("inf"))
    while going:
        saturated, slope = squares_at(t, x, delta, lower, upper, dim, scale, h_scale, NORM, BLOCK)
        last = tl.where(saturated >= target, t, float("inf"))  # all that counts is full
        next = tl.where(slope == 0.0, last, (target - saturated) / slope)
        going = (next > t) & (slope != 0.0)
        t = tl.where(next > t, next, t)
    return t, mass


@triton.jit
def lowered_at(t, x, delta, lower, upper, dim, NORM: tl.constexpr, BLOCK: tl.constexpr):
    """p = 1: the sum of the moves at t, the number of coordinates that move, and of those beyond their bound."""
    total, above, full = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    for first in range(0, dim, BLOCK):
        size, h = coordinates(x, delta, lower, upper, first, dim, 1.0, 1.0, NORM, BLOCK)
        excess = size - t
        total += tl.where(excess > 0.0, tl.where(excess > h, h, excess), 0.0)
        above += tl.where(excess > 0.0, 1.0, 0.0)
        full += tl.where(excess > h, 1.0, 0.0)
    return tl.sum(total, 0), tl.sum(above, 0), tl.sum(full, 0)


@triton.jit
def threshold(radius, largest, x, delta, lower, upper, dim, NORM: tl.constexpr, BLOCK: tl.constexpr):
    """p = 1: the least t >= 0 where the sum of the moves is at most the radius, as in csrc/core."""
    low, high, t, passes = largest * 0.0, largest, largest * 0.0, 0
    total, above, full = lowered_at(t, x, delta, lower, upper, dim, NORM, BLOCK)
    inside = total <= radius
    going = (total > radius) & (bits_of(high) - bits_of(low) > 1)
    answer = tl.where(inside, t, high)
    while going:
        step = t + (total - radius) / (above - full)
        newton = (step > low) & (step < high) & (passes % 8 != 7)
        t = tl.where(newton, step, middle_of(low, high, passes // 8))
        pieces = above + full
        total, above, full = lowered_at(t, x, delta, lower, upper, dim, NORM, BLOCK)
        # no break point passed, or the radius met up to rounding (2^-50)
        done = (newton & (above + full == pieces)) | (tl.abs(total - radius) <= 8.881784197001252e-16 * radius)
        low, high = tl.where(total > radius, t, low), tl.where(total > radius, high, t)
        answer = tl.where(done, t, high)
        passes += 1
        going = (done == 0) & (bits_of(high) - bits_of(low) > 1)
    return answer


@triton.jit
def ball_box_projection_kernel(
    x,       # [rows, dim] float32 or float64
    delta,   # [rows, dim]
    radius,  # [rows] float64
    lower,   # [dim]
    upper,   # [dim]
    out,     # [rows, dim]
    dim, NORM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    x += row * dim
    delta += row * dim
    out += row * dim
    T: tl.constexpr = out.dtype.element_ty
    Bits: tl.constexpr = tl.int64 if T == tl.float64 else tl.int32

    sizes, faults = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.int32)
    for first in range(0, dim, BLOCK):
        i = first + tl.arange(0, BLOCK)
        place, step = tl.load(x + i, mask=i < dim, other=0), tl.load(delta + i, mask=i < dim, other=0)
        low, high = tl.load(lower + i, mask=i < dim, other=0), tl.load(upper + i, mask=i < dim, other=0)
        size = tl.abs(step.to(tl.float64))
        sizes = tl.where(size > sizes, size, sizes)
        usable = step == step if NORM == INF else step - step == 0.0
        faults += tl.where((place >= low) & (place <= high) & usable, 0, 1)
    largest, r = tl.max(sizes, 0), tl.load(radius + row)
    sound, solve = (tl.sum(faults, 0) == 0) & (r >= 0.0), r > 0.0

    scale, h_scale, unit = tl.full((), 1.0, tl.float64), tl.full((), 1.0, tl.float64), tl.full((), 1.0, tl.float64)
    level = r
    if NORM == TWO:
        scale = scale_of(largest) if T == tl.float64 else 1.0
        h_scale = scale_of(r)
        unit = 1.0 / h_scale
        if sound & solve:
            t, mass = root(r * h_scale * (r * h_scale), x, delta, lower, upper, dim, scale, h_scale, NORM, BLOCK)
            level = tl.sqrt(t)
            sound = (r < float("inf")) | (mass < float("inf"))
    elif NORM == ONE:
        if sound & solve:
            level = threshold(r, largest, x, delta, lower, upper, dim, NORM, BLOCK)

    for first in range(0, dim, BLOCK):
        i = first + tl.arange(0, BLOCK)
        place, step = tl.load(x + i, mask=i < dim, other=0), tl.load(delta + i, mask=i < dim, other=0)
        low, high = tl.load(lower + i, mask=i < dim, other=0), tl.load(upper + i, mask=i < dim, other=0)
        size, h = coordinates(x, delta, lower, upper, first, dim, scale, 1.0, NORM, BLOCK)
        if NORM == TWO:
            move = tl.where(size > 0.0, level * size * unit, 0.0)
        elif NORM == ONE:
            move = tl.where(size - level > 0.0, size - level, 0.0)
        else:
            move = tl.where(size < level, size, level)
        move = tl.where(h < move, h, move)
        signed = tl.where(step > 0, move, tl.where(step < 0, -move, 0.0)).to(T)
        # one unit in the last place shorter where the point would be rounded beyond the box
        point = place + signed
        shorter = (signed.to(Bits, bitcast=True) - 1).to(T, bitcast=True)
        signed = tl.where((point < low) | (point > high), shorter, signed)
        signed = tl.where(solve, signed, 0.0)
        tl.store(out + i, tl.where(sound, signed, float("nan")).to(T), mask=i < dim)
