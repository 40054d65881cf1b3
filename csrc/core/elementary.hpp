// Elementary functions of float by additions and multiplications alone, since the libraries' own differ in the last bit
// from one another: the same bits from every instruction set and device.
#pragma once

#include "platform.hpp"

namespace robustperf::ROBUSTPERF_ISA {

// Natural logarithm of a positive normal float (the polynomial is Cephes' logf).
ROBUSTPERF_HD inline float log_of(float y) {
  // Split y = m * 2^e with m in [sqrt(1/2), sqrt(2)); 0x3f3504f3 are the bits of sqrt(1/2).
  const int32_t offset = bits_as<int32_t>(y) - 0x3f3504f3;
  const float e = static_cast<float>(offset >> 23);
  const float m = bits_as<float>((offset & 0x007fffff) + 0x3f3504f3) - 1.0f;
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const float square = m * m;
  float low = p * m * square;
  low = low + e * -2.12194440e-4f;
  low = low - 0.5f * square;
  return (m + low) + e * 0.693359375f;
}

// Exponential of a float (Cephes' expf), 2^-126 at the least; x up to 88.
ROBUSTPERF_HD inline float exp_of(float x) {
  const float y = larger(smaller(x, 88.0f), -87.3f);
  const float rounder = 12582912.0f;  // 1.5 * 2^23: the sum has no bits left behind the point
  const float n = (y * 1.44269504f + rounder) - rounder;
  const float r = (y - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return p * bits_as<float>((static_cast<int32_t>(n) + 127) << 23);
}

}  // namespace robustperf::ROBUSTPERF_ISA
