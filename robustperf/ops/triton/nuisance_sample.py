import torch
import triton
import triton.language as tl

from robustperf.ops.program import Law, delta_dim
from robustperf.ops.triton.launch import launch, words_of
from robustperf.ops.triton.philox import draw_words, key_words, normal_of, uniform_of

BOX, NORMAL, BALL, FOG = (tl.constexpr(int(law)) for law in (Law.BOX, Law.NORMAL, Law.BALL, Law.FOG))
BLOCK = 256


def nuisance_sample(index, draw, codes, numbers, key):
    delta = torch.empty((draw.shape[0], index.shape[0], delta_dim(codes)), dtype=torch.float32, device=index.device)
    index, draw = index.contiguous(), draw.contiguous()
    drawn, balls, word = [], [], 0
    for step in range(len(codes) // 4):
        _, law, size, begin = codes[4 * step : 4 * step + 4]
        if law == Law.SHARED:
            continue
        lower, upper = (tuple(numbers[16 * step + place : 16 * step + place + 6]) for place in (0, 6))
        drawn.append((law, size, begin, word, lower, upper))
        if law == Law.BALL:
            balls.append((size, begin, word + size, upper[0]))
        word += size + (law == Law.BALL)
    rows, dim = delta.shape[0] * delta.shape[1], delta.shape[2]
    where = (delta, index, draw, *words_of(key), index.shape[0], dim)
    laws, bounds = tuple(part for step in drawn for part in step[:4]), tuple(b for step in drawn for b in step[4:])
    launch(
        nuisance_sample_kernel,
        triton.cdiv(delta.numel(), BLOCK),
        delta,
        *where,
        delta.numel(),
        LAWS=laws,
        BOUNDS=tuple(b for pair in bounds for b in pair),
        STEPS=len(drawn),
        BLOCK=BLOCK,
    )
    for size, begin, share_word, radius in balls:
        launch(
            nuisance_sample_ball_kernel,
            rows,
            delta,
            *where,
            size,
            begin,
            share_word,
            radius,
            BLOCK=min(triton.next_power_of_2(size), 1024),
        )
    return delta


@triton.jit(do_not_specialize=["key_lo", "key_hi"])
def nuisance_sample_kernel(
    delta,  # [draws, samples, dim] float32
    index,  # [samples] int64
    draw,   # [draws] int64
    key,    # [] int64 or None, for its words
    key_lo: tl.int64, key_hi: tl.int64, samples, dim, total,
    LAWS: tl.constexpr,    # law, components, where they begin and the first word, for each step
    BOUNDS: tl.constexpr,  # six lower and six upper ones for each step
    STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = at < total
    row, j = at // dim, at % dim
    word = j
    for s in tl.static_range(STEPS):
        word = tl.where(j >= LAWS[4 * s + 2], j - LAWS[4 * s + 2] + LAWS[4 * s + 3], word)
    number = tl.load(draw + row // samples, mask=there, other=0)
    sample = tl.load(index + row % samples, mask=there, other=0)
    key_lo, key_hi = key_words(key, key_lo, key_hi)
    bits = word_of(key_lo, key_hi, sample, number, word)
    u = uniform_of(bits)
    value = u
    for s in tl.static_range(STEPS):
        mine = (j >= LAWS[4 * s + 2]) & (j < LAWS[4 * s + 2] + LAWS[4 * s + 1])
        lower = tl.full((BLOCK,), BOUNDS[12 * s], tl.float32)
        upper = tl.full((BLOCK,), BOUNDS[12 * s + 6], tl.float32)
        if LAWS[4 * s] == NORMAL:
            value = tl.where(mine, upper * normal_of(bits), value)
        elif LAWS[4 * s] == BALL:
            value = tl.where(mine, normal_of(bits), value)
        else:
            if LAWS[4 * s] == BOX:
                for part in tl.static_range(1, 6):
                    this = j == LAWS[4 * s + 2] + part
                    lower = tl.where(this, BOUNDS[12 * s + part], lower)
                    upper = tl.where(this, BOUNDS[12 * s + 6 + part], upper)
            elif LAWS[4 * s] == FOG:
                mine = j == LAWS[4 * s + 2]
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
    key_lo: tl.int64, key_hi: tl.int64, samples, dim, size, begin, share_word: tl.int64, radius: tl.float64,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    delta += row * dim + begin
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
        share_word + tl.zeros((), tl.int64),
    )
    share = tl.exp(tl.log(uniform_of(bits).to(tl.float64)) / size)
    scale = tl.where(square > 0.0, radius * share / tl.sqrt(square), 0.0)
    for first in range(0, size, BLOCK):
        j = first + tl.arange(0, BLOCK)
        normal = tl.load(delta + j, mask=j < size, other=0.0).to(tl.float64)
        tl.store(delta + j, (normal * scale).to(tl.float32), mask=j < size)
