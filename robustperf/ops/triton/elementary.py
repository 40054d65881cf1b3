"""Numbers: casts, and elementary functions by additions and multiplications alone, with the bits of
csrc/core/elementary.hpp."""

import triton
import triton.language as tl


@triton.jit
def log_of(y):
    """Natural logarithm of positive normal numbers; float64 takes the device's own."""
    if y.dtype == tl.float64:
        return tl.log(y)
    else:
        offset = y.to(tl.int32, bitcast=True) - 0x3F3504F3  # the bits of sqrt(1/2)
        e = (offset >> 23).to(tl.float32)
        m = ((offset & 0x007FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
        p = m * 7.0376836292e-2 - 1.1514610310e-1
        p = p * m + 1.1676998740e-1
        p = p * m - 1.2420140846e-1
        p = p * m + 1.4249322787e-1
        p = p * m - 1.6668057665e-1
        p = p * m + 2.0000714765e-1
        p = p * m - 2.4999993993e-1
        p = p * m + 3.3333331174e-1
        square = m * m
        low = p * m * square
        low = low + e * -2.12194440e-4
        low = low - 0.5 * square
        return (m + low) + e * 0.693359375


@triton.jit
def exp_of(x):
    """Exponential of numbers up to 88, 2^-126 at the least; float64 takes the device's own."""
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        y = tl.minimum(tl.maximum(x, -87.3), 88.0)
        n = (y * 1.44269504 + 12582912.0) - 12582912.0  # 1.5 * 2^23: the sum has no bits left behind the point
        r = (y - n * 0.693359375) - n * -2.12194440e-4
        p = r * 1.9875691500e-4 + 1.3981999507e-3
        p = p * r + 8.3334519073e-3
        p = p * r + 4.1665795894e-2
        p = p * r + 1.6666665459e-1
        p = p * r + 5.0000001201e-1
        p = p * (r * r) + r + 1.0
        return p * ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def quotient(a, b):
    """a / b, rounded to the nearest; Triton's own division of float32 is not."""
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def finite(v):
    """Neither NaN nor infinite."""
    return v - v == 0.0


@triton.jit
def widened(z):
    """float32 of the 16-bit numbers, which is exact; the others as they are."""
    if z.dtype == tl.float64:
        return z
    else:
        return z.to(tl.float32)
