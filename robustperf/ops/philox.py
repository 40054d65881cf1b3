"""Philox4x32-10 (Salmon et al. 2011) in int64 arithmetic, of which the low 32 bits count."""

from typing import TypeVar

import torch

Words = TypeVar("Words", int, torch.Tensor)

MASK = 0xFFFFFFFF


def philox(counter: list[Words], key: tuple[int, int]) -> list[Words]:
    """The four output words for four counter words: integers, or int64 tensors of one shape, below 2^32."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(0xD2511F53, c0)
        high1, low1 = _multiply(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return [c0, c1, c2, c3]


def _multiply(a: int, b: Words) -> tuple[Words, Words]:
    """The high and the low word of a 32 by 32 bit product, by halves: int64 has no room for its last bit."""
    low = a * (b & 0xFFFF)
    high = a * (b >> 16) + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)
