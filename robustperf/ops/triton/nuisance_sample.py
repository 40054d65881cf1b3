import torch
import triton
import triton.language as tl

from robustperf.ops.program import Distribution, delta_dim, steps_of
from robustperf.ops.triton.launch import launch, words_of
from robustperf.ops.triton.philox import draw_words, key_words, normal_of, uniform_of

BOX, NORMAL, BALL, FOG = (tl.constexpr(int(Distribution[name])) for name in ("BOX", "NORMAL", "BALL", "FOG"))
BLOCK = 256


def nuisance_sample(index, draw, codes, parameters, key):
    delta = torch.empty((draw.shape[0], index.shape[0], delta_dim(codes)), dtype=torch.float32, device=index.device)
    index, draw = index.contiguous(), draw.contiguous()
    drawn = [step for step in steps_of(codes, parameters) if step.distribution != Distribution.SHARED]
    rows, dim = delta.shape[0] * delta.shape[1], delta.shape[2]
    where = (delta, index, draw, *words_of(key), index.shape[0], dim)
    launch(
        nuisance_sample_kernel,
        triton.cdiv(delta.numel(), BLOCK),
        delta,
        *where,
        delta.numel(),
        DRAWN=tuple(code for step in drawn for code in (step.distribution, step.dim, step.offset, step.word)),
        BOUNDS=tuple(bound for step in drawn for bound in (*step.lower, *step.upper)),
        STEPS=len(drawn),
        BLOCK=BLOCK,
    )
    for step in drawn:
        if step.distribution != Distribution.BALL:
            continue
        launch(
            nuisance_sample_ball_kernel,
            rows,
            delta,
            *where,
            step.dim,
            step.offset,
            step.word + step.dim,
            step.upper[0],
            BLOCK=min(triton.next_power_of_2(step.dim), 1024),
        )
    return delta


@triton.jit(do_not_specialize=["key_lo", "key_hi"])
def nuisance_sample_kernel(
    delta,  # [draws, samples, dim] float32
    index,  # [samples] int64
    draw,   # [draws] int64
    key,    # [] int64 or None, for its words
    key_lo: tl.int64, key_hi: tl.int64, samples, dim, total,
    DRAWN: tl.constexpr,   # distribution, components, their offset and the first word of each step
    BOUNDS: tl.constexpr,  # six lower and six upper ones of each step
    STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = at < total
    row, j = at // dim, at % dim
    word = j
    for s in tl.static_range(STEPS):
        word = tl.where(j >= DRAWN[4 * s + 2], j - DRAWN[4 * s + 2] + DRAWN[4 * s + 3], word)
    number = tl.load(draw + row // samples, mask=there, other=0)
    sample = tl.load(index + row % samples, mask=there, other=0)
    key_lo, key_hi = key_words(key, key_lo, key_hi)
    bits = word_of(key_lo, key_hi, sample, number, word)
    u = uniform_of(bits)
    value = u
    for s in tl.static_range(STEPS):
        mine = (j >= DRAWN[4 * s + 2]) & (j < DRAWN[4 * s + 2] + DRAWN[4 * s + 1])
        lower = tl.full((BLOCK,), BOUNDS[12 * s], tl.float32)
        upper = tl.full((BLOCK,), BOUNDS[12 * s + 6], tl.float32)
        if DRAWN[4 * s] == NORMAL:
            value = tl.where(mine, upper * normal_of(bits), value)
        elif DRAWN[4 * s] == BALL:
            value = tl.where(mine, normal_of(bits), value)
        else:
            if DRAWN[4 * s] == BOX:
                for part in tl.static_range(1, 6):
                    this = j == DRAWN[4 * s + 2] + part
                    lower = tl.where(this, BOUNDS[12 * s + part], lower)
                    upper = tl.where(this, BOUNDS[12 * s + 6 + part], upper)
            elif DRAWN[4 * s] == FOG:
                mine = j == DRAWN[4 * s + 2]
            value = tl.where(mine, tl.minimum(lower + (upper - lower) * u, upper), value)
    tl.store(delta + at, value, mask=there)


@triton.jit
def word_of(key_lo, key_hi, index, draw, word):
    w0, w1, w2, w3 = draw_words(key_lo, key_hi, index, draw, word // 4)
    lane = word % 4
    return tl.where(lane < 2, tl.where(lane == 0, w0, w1), tl.where(lane == 2, w2, w3))


@triton.jit(do_not_specialize=["key_lo", "key_hi"])
def nuisance_sample_ball_kernel(
    delta,  # [draws, samples, dim] float32; normals in, a point of the ball out
    index,  # [samples] int64
    draw,   # [draws] int64
    key,    # [] int64 or None, for its words
    key_lo: tl.int64, key_hi: tl.int64, samples, dim, size, offset, radius_word: tl.int64, radius: tl.float64,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    delta += row * dim + offset
    squares = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, size, BLOCK):
        j = first + tl.arange(0, BLOCK)
        normal = tl.load(delta + j, mask=j < size, other=0.0).to(tl.float64)
        squares += normal * normal
    square = tl.sum(squares, 0)
    key_lo, key_hi = key_words(key, key_lo, key_hi)
    bits = word_of(
        key_lo,
        key_hi,
        tl.load(index + row % samples),
        tl.load(draw + row // samples),
        radius_word + tl.zeros((), tl.int64),
    )
    fraction = tl.exp(tl.log(uniform_of(bits).to(tl.float64)) / size)
    scale = tl.where(square > 0.0, radius * fraction / tl.sqrt(square), 0.0)
    for first in range(0, size, BLOCK):
        j = first + tl.arange(0, BLOCK)
        normal = tl.load(delta + j, mask=j < size, other=0.0).to(tl.float64)
        tl.store(delta + j, (normal * scale).to(tl.float32), mask=j < size)
