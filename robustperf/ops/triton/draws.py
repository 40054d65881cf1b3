import torch
import triton
import triton.language as tl

from robustperf.ops.triton.launch import launch, words_of
from robustperf.ops.triton.philox import draw_words, key_words, normal_of, uniform_of

BLOCK = 256


def draws(key, index, draw, dim, normal):
    out = torch.empty((draw.shape[0], index.shape[0], dim), dtype=torch.float32, device=index.device)
    blocks = triton.cdiv(dim, 4)
    total = out.shape[0] * out.shape[1] * blocks
    launch(
        draws_kernel,
        triton.cdiv(total, BLOCK),
        out,
        out,
        index.contiguous(),
        draw.contiguous(),
        *words_of(key),
        index.shape[0],
        dim,
        blocks,
        total,
        NORMAL=normal,
        BLOCK=BLOCK,
    )
    return out


@triton.jit(do_not_specialize=["key_lo", "key_hi"])
def draws_kernel(
    out,    # [draws, samples, dim] float32
    index,  # [samples] int64
    draw,   # [draws] int64
    key,    # [] int64 or None, for its words
    key_lo: tl.int64, key_hi: tl.int64, samples, dim,
    blocks,  # of four components in a row
    total,   # of all rows
    NORMAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = at < total
    row, block = at // blocks, at % blocks
    number = tl.load(draw + row // samples, mask=there, other=0)
    sample = tl.load(index + row % samples, mask=there, other=0)
    key_lo, key_hi = key_words(key, key_lo, key_hi)
    w0, w1, w2, w3 = draw_words(key_lo, key_hi, sample, number, block)
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3)).reshape(BLOCK, 4)
    component = (4 * block)[:, None] + tl.arange(0, 4)[None, :]
    value = normal_of(words) if NORMAL else uniform_of(words)
    tl.store(out + row[:, None] * dim + component, value, mask=there[:, None] & (component < dim))
