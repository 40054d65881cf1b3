"""Philox4x32-10 (Salmon et al. 2011), and what its words become: the bits of csrc/core/philox.hpp."""

import triton
import triton.language as tl

from robustperf.ops.triton.elementary import log_of


@triton.jit
def philox(c0, c1, c2, c3, key_lo, key_hi):
    """The four output words for four counter words and two key words, all uint32."""
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, tl.full((), 0xD2511F53, tl.uint32)), c0 * 0xD2511F53
        high1, low1 = tl.umulhi(c2, tl.full((), 0xCD9E8D57, tl.uint32)), c2 * 0xCD9E8D57
        c0, c1, c2, c3 = high1 ^ c1 ^ key_lo, low1, high0 ^ c3 ^ key_hi, low0
        key_lo += tl.full((), 0x9E3779B9, tl.uint32)
        key_hi += tl.full((), 0xBB67AE85, tl.uint32)
    return c0, c1, c2, c3


@triton.jit
def key_words(key, key_lo, key_hi):
    """The key's words; `key` is where a tensor holds them, or None."""
    if key is not None:
        key_lo = tl.load(key)
        key_hi = key_lo >> 32
    return key_lo, key_hi


@triton.jit
def draw_words(key_lo, key_hi, index, draw, block):
    """The words of components 4 block ... 4 block + 3 of draw `draw` for sample `index`; all int64."""
    return philox(
        block.to(tl.uint32),
        draw.to(tl.uint32),
        index.to(tl.uint32),
        (index >> 32).to(tl.uint32),
        key_lo.to(tl.uint32),
        key_hi.to(tl.uint32),
    )


@triton.jit
def uniform_of(word):
    return (word >> 8).to(tl.float32) * 0.000000059604644775390625  # 2^-24


@triton.jit
def normal_of(word):
    """Giles' polynomials for the quantile."""
    x = (2 * (word >> 8).to(tl.int32) + 1 - (1 << 24)).to(tl.float32) * 0.000000059604644775390625
    w = -log_of((1.0 - x) * (1.0 + x))
    s = w - 2.5
    central = s * 2.81022636e-08 + 3.43273939e-07
    central = central * s - 3.5233877e-06
    central = central * s - 4.39150654e-06
    central = central * s + 0.00021858087
    central = central * s - 0.00125372503
    central = central * s - 0.00417768164
    central = central * s + 0.246640727
    central = central * s + 1.50140941
    t = tl.sqrt_rn(tl.maximum(w, 0.0)) - 3.0
    tail = t * -0.000200214257 + 0.000100950558
    tail = tail * t + 0.00134934322
    tail = tail * t - 0.00367342844
    tail = tail * t + 0.00573950773
    tail = tail * t - 0.0076224613
    tail = tail * t + 0.00943887047
    tail = tail * t + 1.00167406
    tail = tail * t + 2.83297682
    return tl.where(w < 5.0, central, tail) * x * 1.41421356
