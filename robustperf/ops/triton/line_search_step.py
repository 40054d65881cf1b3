import triton
import triton.language as tl

from robustperf.ops import search_state
from robustperf.ops.triton.elementary import finite
from robustperf.ops.triton.launch import launch
from robustperf.ops.triton.logit_gap import class_block, gap_of

UNSEEN, OPEN, CLOSED = (
    tl.constexpr(float(stage)) for stage in (search_state.UNSEEN, search_state.OPEN, search_state.CLOSED)
)
LINE, SEARCH = tl.constexpr(len(search_state.LINE_FIELD)), tl.constexpr(len(search_state.FIELD))


def line_search_step(
    logits,
    rows,
    label,
    x,
    candidates,
    lines,
    state,
    next,
    closest,
    rounding_tolerance,
    tol,
    bisection,
    probes,
    max_iterations,
):
    active, (ensemble, points, dim) = rows.shape[0], candidates.shape
    classes = 0 if logits is None else logits.shape[1]
    launch(
        line_search_step_kernel,
        active,
        x,
        None if logits is None else logits.contiguous(),
        rows,
        label,
        x,
        candidates,
        lines,
        state,
        next,
        closest,
        points,
        ensemble,
        dim,
        classes,
        rounding_tolerance,
        tol,
        probes,
        max_iterations,
        BISECTION=bisection,
        LINES=triton.next_power_of_2(max(ensemble, 1)),
        CLASSES=class_block(max(classes, 1)),
        BLOCK=512,
    )


@triton.jit
def min_of(a, b):
    return tl.where(b < a, b, a)


@triton.jit
def max_of(a, b):
    return tl.where(a < b, b, a)


@triton.jit
def pick(values, mine):
    return tl.sum(tl.where(mine, values, 0.0), 0)


@triton.jit
def opened(here, place, gap, stage, a, gap_a, b, gap_b):
    """The first crossing of the lines `here`: a becomes the end nearer to the root."""
    nearer = tl.abs(gap) < tl.abs(gap_a)
    b, gap_b = tl.where(here, tl.where(nearer, a, place), b), tl.where(here, tl.where(nearer, gap_a, gap), gap_b)
    a, gap_a = tl.where(here & nearer, place, a), tl.where(here & nearer, gap, gap_a)
    return tl.where(here, OPEN, stage), a, gap_a, b, gap_b


@triton.jit
def inside(a, gap_a, b, gap_b, c, gap_c, iterations, tol, max_iterations, BISECTION: tl.constexpr):
    """The next place inside a bracket: the secant first, then Chandrupatla's choice."""
    margin = 0.99 * tol / tl.abs(b - a)
    xi, phi = (a - b) / (c - b), (gap_a - gap_b) / (gap_c - gap_b)
    quadratic = gap_a / (gap_b - gap_a) * (gap_c / (gap_b - gap_c)) + (c - a) / (b - a) * (
        gap_a / (gap_c - gap_a)) * (gap_b / (gap_c - gap_b))  # fmt: skip
    sound = finite(gap_c) & (1.0 - tl.sqrt(1.0 - xi) < phi) & (phi < tl.sqrt(xi))
    t = tl.where(iterations == 0.0, gap_a / (gap_a - gap_b), tl.where(sound, quadratic, 0.5))
    t = tl.where((margin < 0.5) & (t == t), max_of(margin, min_of(t, 1.0 - margin)), 0.5)
    trusted = (iterations < max_iterations) & finite(gap_a) & finite(gap_b) & (not BISECTION)
    t = tl.where(trusted, t, 0.5)
    place = a + t * (b - a)
    return tl.where((place == a) | (place == b), a + 0.5 * (b - a), place)


@triton.jit
def write_along(out, x, far_end, step, dim, BLOCK: tl.constexpr):
    """x + step (x' - x), never outside the interval between the two, and x' itself at step 1."""
    t = step.to(out.dtype.element_ty)
    for first in range(0, dim, BLOCK):
        i = first + tl.arange(0, BLOCK)
        start = tl.load(x + i, mask=i < dim, other=0)
        end = tl.load(far_end + i, mask=i < dim, other=0)
        between = max_of(min_of(start, end), min_of(start + t * (end - start), max_of(start, end)))
        tl.store(out + i, tl.where(t == 1.0, end, between), mask=i < dim)


@triton.jit
def line_search_step_kernel(
    logits,      # [active, classes]; None at the start
    rows,        # [active] int64, which point each row belongs to
    label,       # [points] int64
    x,           # [points, dim] float32 or float64
    candidates,  # [ensemble, points, dim]
    lines,       # [points, ensemble, LINE] float64
    state,       # [points, SEARCH] float64
    next,        # [active, dim]
    closest,     # [points, dim]
    points, ensemble, dim, classes,
    rounding_tolerance: tl.float64, tol: tl.float64, probes: tl.int64, max_iterations: tl.int64,
    BISECTION: tl.constexpr, LINES: tl.constexpr, CLASSES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(0).to(tl.int64)
    p = tl.load(rows + m)
    state += p * SEARCH
    gap_x, step, line = tl.load(state), tl.load(state + 1), tl.load(state + 2)
    radius, best_step, best_line = tl.load(state + 3), tl.load(state + 4), tl.load(state + 5)
    evaluations = tl.load(state + 6)
    i = tl.arange(0, LINES)
    there = i < ensemble
    lines += (p * ensemble + i) * LINE
    length, gap_end = tl.load(lines, mask=there, other=1.0), tl.load(lines + 1, mask=there, other=1.0)
    a, gap_a = tl.load(lines + 2, mask=there, other=0.0), tl.load(lines + 3, mask=there, other=1.0)
    b, gap_b = tl.load(lines + 4, mask=there, other=1.0), tl.load(lines + 5, mask=there, other=1.0)
    c, gap_c = tl.load(lines + 6, mask=there, other=1.0), tl.load(lines + 7, mask=there, other=1.0)
    iterations, probe = tl.load(lines + 8, mask=there, other=0.0), tl.load(lines + 9, mask=there, other=0.0)
    stage = tl.load(lines + 10, mask=there, other=2.0)
    tl.debug_barrier()  # every warp has read the state before one of them writes it

    parts = probes.to(tl.float64) + 1.0
    if logits is None:
        a, gap_a = tl.where(there, 0.0, a), tl.where(there, gap_x, gap_a)
        end_known = (probes == 0) & (gap_end == gap_end)
        stage = tl.where(there & finite(length) & ~end_known, UNSEEN, CLOSED)
        across = there & finite(length) & end_known & (gap_end < 0.0)
        stage, a, gap_a, b, gap_b = opened(across, 1.0, gap_end, stage, a, gap_a, b, gap_b)
        going = True
    else:
        going = line >= 0.0
        gap = gap_of(logits + m * classes, classes, tl.load(label + p), rounding_tolerance, CLASSES)
        seen = there & (i.to(tl.float64) == line)
        evaluations = tl.where(going, evaluations + 1.0, evaluations)
        crossed = tl.zeros_like(a) + gap < 0.0
        was_open = seen & (stage == OPEN)
        same = crossed == (gap_a < 0.0)
        iterations = tl.where(was_open, iterations + 1.0, iterations)
        c, gap_c = tl.where(was_open, tl.where(same, a, b), c), tl.where(was_open, tl.where(same, gap_a, gap_b), gap_c)
        b, gap_b = tl.where(was_open & ~same, a, b), tl.where(was_open & ~same, gap_a, gap_b)
        stage, a, gap_a, b, gap_b = opened(seen & ~was_open & crossed, step, gap, stage, a, gap_a, b, gap_b)
        beyond = seen & ~was_open & ~crossed
        here = tl.zeros_like(a) + step
        probed = beyond & (here == (probe + 1.0) / parts) & (here < 1.0)
        probe = tl.where(probed, probe + 1.0, probe)
        stage = tl.where(beyond & ~probed, CLOSED, stage)
        a, gap_a = tl.where(was_open | beyond, step, a), tl.where(was_open | beyond, gap, gap_a)

    nearer = False
    while going:
        width = tl.abs(b - a)
        crossed_end, other_end = tl.where(gap_a < 0.0, a, b), tl.where(gap_a < 0.0, b, a)
        # a gain over the radius below the tolerance is not worth an evaluation; a bracket down to it needs none
        drop = (stage == OPEN) & (width > tol) & (other_end >= radius / length - tol)
        stage = tl.where(drop, CLOSED, stage)
        bound = min_of(radius, tl.min(tl.where(stage == OPEN, crossed_end * length, float("inf")), 0))
        t = gap_a / (gap_a - gap_b)
        estimate = tl.where(width <= tol, -1.0, length * (a + tl.where(finite(t), t, 0.5) * (b - a)))
        estimate = tl.where(stage == OPEN, estimate, float("inf"))
        open = tl.min(tl.where((stage == OPEN) & (estimate == tl.min(estimate, 0)), i, LINES), 0)
        shortest = tl.where(stage == UNSEEN, length, float("inf"))
        unseen = tl.min(tl.where((stage == UNSEEN) & (shortest == tl.min(shortest, 0)), i, LINES), 0)
        goes_outward, refines_open = unseen < LINES, (unseen == LINES) & (open < LINES)
        at = tl.where(goes_outward, unseen, open)
        mine = i == at
        number = tl.where(at < LINES, at, -1).to(tl.float64)
        this_length, this_end, this_probe = pick(length, mine), pick(gap_end, mine), pick(probe, mine)
        this_a, this_b, this_width = pick(a, mine), pick(b, mine), pick(width, mine)
        this_crossed = pick(crossed_end, mine)

        end = min_of(bound / this_length - tol, 1.0)
        place = (this_probe + 1.0) / parts
        place = tl.where((this_probe < parts - 1.0) & (place < end), place, end)
        known = (place == 1.0) & (this_end == this_end)
        evaluates_outward = goes_outward & (end > this_a) & ~known
        finds = goes_outward & (end > this_a) & known & (this_end < 0.0)

        within = radius / this_length - tol
        refined = inside(
            this_a,
            pick(gap_a, mine),
            this_b,
            pick(gap_b, mine),
            pick(c, mine),
            pick(gap_c, mine),
            pick(iterations, mine),
            tol,
            max_iterations,
            BISECTION,
        )
        refined = tl.where(within < this_crossed, within, refined)
        # a place equal to an end means that no number lies between the two
        refines = refines_open & (this_width > tol) & (refined != this_a) & (refined != this_b)
        ends = refines_open & ~refines & (this_crossed * this_length < radius)

        step = tl.where(evaluates_outward, place, tl.where(refines_open, refined, step))
        line = tl.where(goes_outward & ~evaluates_outward, line, number)
        best_step, best_line = tl.where(ends, this_crossed, best_step), tl.where(ends, number, best_line)
        radius = tl.where(ends, this_crossed * this_length, radius)
        nearer = nearer | ends
        going = (goes_outward & ~evaluates_outward) | (refines_open & ~refines)
        stage = tl.where(mine & going, CLOSED, stage)
        stage, a, gap_a, b, gap_b = opened(mine & finds, 1.0, gap_end, stage, a, gap_a, b, gap_b)

    x += p * dim
    candidates += p * dim
    if nearer:
        write_along(closest + p * dim, x, candidates + best_line.to(tl.int64) * points * dim, best_step, dim, BLOCK)
    if line >= 0.0:
        write_along(next + m * dim, x, candidates + line.to(tl.int64) * points * dim, step, dim, BLOCK)
    tl.store(state + 1, step)
    tl.store(state + 2, line)
    tl.store(state + 3, radius)
    tl.store(state + 4, best_step)
    tl.store(state + 5, best_line)
    tl.store(state + 6, evaluations)
    tl.store(lines + 2, a, mask=there)
    tl.store(lines + 3, gap_a, mask=there)
    tl.store(lines + 4, b, mask=there)
    tl.store(lines + 5, gap_b, mask=there)
    tl.store(lines + 6, c, mask=there)
    tl.store(lines + 7, gap_c, mask=there)
    tl.store(lines + 8, iterations, mask=there)
    tl.store(lines + 9, probe, mask=there)
    tl.store(lines + 10, stage, mask=there)
