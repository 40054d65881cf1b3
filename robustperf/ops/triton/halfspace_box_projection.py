import torch
import triton
import triton.language as tl

from robustperf.ops.halfspace_box_projection import NORM_CODES
from robustperf.ops.triton.box_projection import bits_of, from_bits, middle_of, scale_of
from robustperf.ops.triton.launch import launch

ONE, TWO = (tl.constexpr(NORM_CODES[p]) for p in (1.0, 2.0))


def halfspace_box_projection(x, w, c, norm, lower, upper):
    rows, dim = x.shape
    delta = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    feasible = torch.empty(rows, dtype=torch.bool, device=x.device)
    block = min(max(triton.next_power_of_2(dim), 16), 1024)
    launch(
        halfspace_box_projection_kernel,
        rows,
        x,
        x.contiguous(),
        w.contiguous(),
        c.contiguous(),
        delta,
        feasible,
        dim,
        lower,
        upper,
        NORM=norm,
        BLOCK=block,
    )
    return delta, feasible


@triton.jit
def coordinates(x, w, first, dim, scale, lower, upper, BLOCK: tl.constexpr):
    """The weights |w| scale and the room h of some coordinates; none of either beyond the last one."""
    i = first + tl.arange(0, BLOCK)
    there = i < dim
    place = tl.load(x + i, mask=there, other=0).to(tl.float64)
    normal = tl.load(w + i, mask=there, other=0).to(tl.float64)
    room = tl.where(normal > 0.0, upper - place, place - lower)
    return tl.abs(normal) * scale, tl.where(there, room, 0.0)


@triton.jit
def reach(t, weight, NORM: tl.constexpr):
    return t * weight if NORM == TWO else t + weight * 0.0


@triton.jit
def sums_at(t, x, w, dim, scale, lower, upper, NORM: tl.constexpr, BLOCK: tl.constexpr):
    """Sums of weight h over the coordinates that are saturated at t, and of F's slope over the others."""
    saturated, slope = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    for first in range(0, dim, BLOCK):
        weight, h = coordinates(x, w, first, dim, scale, lower, upper, BLOCK)
        full = reach(t, weight, NORM) >= h
        saturated += tl.where(full, weight * h, 0.0)
        slope += tl.where(full, 0.0, reach(weight, weight, NORM))
    return tl.sum(saturated, 0), tl.sum(slope, 0)


@triton.jit
def mass_from(t, x, w, dim, scale, lower, upper, BLOCK: tl.constexpr):
    """Sum of weight h over the weights >= t, and how many they are."""
    mass, count = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    for first in range(0, dim, BLOCK):
        weight, h = coordinates(x, w, first, dim, scale, lower, upper, BLOCK)
        heavy = weight >= t
        mass += tl.where(heavy, weight * h, 0.0)
        count += tl.where(heavy & (first + tl.arange(0, BLOCK) < dim), 1.0, 0.0)
    return tl.sum(mass, 0), tl.sum(count, 0)


@triton.jit
def newton_root(c, slope, x, w, dim, scale, lower, upper, NORM: tl.constexpr, BLOCK: tl.constexpr):
    """The root t of F(t) = c, as in csrc/core: from below, until the saturated set repeats."""
    t = c / slope
    going = True
    while going:
        saturated, slope = sums_at(t, x, w, dim, scale, lower, upper, NORM, BLOCK)
        # with all that counts saturated: at the root, or at the corner of the box
        last = tl.where(saturated >= c, t, float("inf"))
        next = tl.where(slope == 0.0, last, (c - saturated) / slope)
        going = (next > t) & (slope != 0.0)
        t = tl.where(next > t, next, t)
    return t


@triton.jit
def weighted_select(c, largest, x, w, dim, scale, lower, upper, BLOCK: tl.constexpr):
    """(low, high, mass): among the weights in [low, high), which are one or equal, lies the one where the mass of the
    heavier ones, that of the weights >= high, reaches c. By halving the values, then their bits."""
    low, high = largest * 0.0, from_bits(bits_of(largest) + 1)
    mass, count, inside = largest * 0.0, largest * 0.0, largest * 0.0 + dim
    halvings = 0
    going = (inside > 1.0) & (bits_of(high) - bits_of(low) > 1)
    while going:
        middle = middle_of(low, high, halvings)
        found, number = mass_from(middle, x, w, dim, scale, lower, upper, BLOCK)
        enough = found >= c
        inside = tl.where(enough, number - count, inside - (number - count))
        low, high = tl.where(enough, middle, low), tl.where(enough, high, middle)
        mass, count = tl.where(enough, mass, found), tl.where(enough, count, number)
        halvings += 1
        going = (inside > 1.0) & (bits_of(high) - bits_of(low) > 1)
    return low, high, mass


@triton.jit
def halfspace_box_projection_kernel(
    x,         # [rows, dim] float32 or float64
    w,         # [rows, dim]
    c,         # [rows] float64
    delta,     # [rows, dim]
    feasible,  # [rows] bool
    dim, lower: tl.float64, upper: tl.float64, NORM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    x += row * dim
    w += row * dim
    delta += row * dim
    T: tl.constexpr = delta.dtype.element_ty

    # squares of doubles may overflow or vanish; the square of any float fits a double as it is
    heaviest, faults = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.int32)
    for first in range(0, dim, BLOCK):
        i = first + tl.arange(0, BLOCK)
        place = tl.load(x + i, mask=i < dim, other=lower).to(tl.float64)
        normal = tl.load(w + i, mask=i < dim, other=0).to(tl.float64)
        heaviest = tl.where(tl.abs(normal) > heaviest, tl.abs(normal), heaviest)
        sound = (place >= lower) & (place <= upper) & (normal - normal == 0.0)
        faults += tl.where(sound | (i >= dim), 0, 1)
    largest = tl.max(heaviest, 0)
    scale = scale_of(largest) if T == tl.float64 else largest * 0.0 + 1.0
    wanted = tl.load(c + row) * scale
    sound = (tl.sum(faults, 0) == 0) & (wanted == wanted)

    carried, slopes = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    for first in range(0, dim, BLOCK):
        weight, h = coordinates(x, w, first, dim, scale, lower, upper, BLOCK)
        carried += weight * h
        slopes += tl.where(h > 0.0, reach(weight, weight, NORM), 0.0)
    total = tl.sum(carried, 0)
    reached = total >= wanted
    solve = sound & (wanted > 0.0) & reached

    # what moves: with min(reach(t), h), or of the weights >= high all and of those from low on the first ones
    t = tl.full((), float("inf"), tl.float64)
    low, high, left = total * 0.0, total * 0.0, total * 0.0
    if solve:
        if NORM == ONE:
            low, high, mass = weighted_select(wanted, largest * scale, x, w, dim, scale, lower, upper, BLOCK)
            left = wanted - mass
        else:
            t = newton_root(wanted, tl.sum(slopes, 0), x, w, dim, scale, lower, upper, NORM, BLOCK)

    before, done = total * 0.0, tl.zeros((), tl.int32)  # the room of the equal weights so far; past the last one
    for first in range(0, dim, BLOCK):
        i = first + tl.arange(0, BLOCK)
        weight, h = coordinates(x, w, first, dim, scale, lower, upper, BLOCK)
        normal = tl.load(w + i, mask=i < dim, other=0)
        if NORM == ONE:
            equal = solve & (weight >= low) & (weight < high)
            room = tl.where(equal, h, 0.0)
            rest = left / weight - (before + tl.cumsum(room, 0) - room)
            last = (equal & (rest <= h)).to(tl.int32)
            over = done + tl.cumsum(last, 0) - last > 0
            move = tl.where(equal, tl.where(over | (rest <= 0.0), 0.0, tl.minimum(rest, h)),
                            tl.where(weight >= high, h, 0.0))  # fmt: skip
            before += tl.sum(room, 0)
            done += tl.sum(last, 0)
        else:
            move = tl.where(solve, tl.minimum(reach(t, weight, NORM), h), h)
        move = tl.where(wanted > 0.0, move, 0.0)
        signed = tl.where(normal > 0.0, move, tl.where(normal < 0.0, -move, 0.0))
        tl.store(delta + i, tl.where(sound, signed, float("nan")).to(T), mask=i < dim)
    tl.store(feasible + row, sound & (reached | (wanted <= 0.0)))
