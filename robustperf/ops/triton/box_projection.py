"""What the projections within a box share, as in csrc/core/box_projection.hpp."""

import triton
import triton.language as tl


@triton.jit
def bits_of(value):
    """Doubles that are not negative are in the order of their bits."""
    return value.to(tl.int64, bitcast=True)


@triton.jit
def from_bits(bits):
    return bits.to(tl.float64, bitcast=True)


@triton.jit
def middle_of(low, high, halvings):
    """A double between low and high, where there is one: half way between the values, later between their bits."""
    half = from_bits(bits_of(low) + (bits_of(high) - bits_of(low)) // 2)
    half = tl.where(halvings < 16, low + 0.5 * (high - low), half)
    return tl.where((half > low) & (half < high), half, from_bits(bits_of(low) + 1))


@triton.jit
def scale_of(largest):
    """A power of two near 1 / largest: the exponent turned round."""
    exponent = bits_of(largest) >> 52
    turned = tl.minimum(tl.maximum(2046 - exponent, 1), 2045) << 52
    return tl.where((largest > 0.0) & (exponent < 2047), from_bits(turned), 1.0)
