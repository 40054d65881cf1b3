// Elementary functions from additions and multiplications alone: the libraries' own differ in the last bit from one
// another, these give the same bits on every instruction set and device.
#pragma once

#include "platform.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

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

// For double: log m = 2 artanh(s) with s = (m - 1) / (m + 1), by its series.
ROBUSTPERF_HD inline double log_of(double y) {
  const int64_t offset = bits_as<int64_t>(y) - 0x3fe6a09e667f3bcd;
  const double e = static_cast<double>(offset >> 52);
  const double m = bits_as<double>((offset & 0x000fffffffffffff) + 0x3fe6a09e667f3bcd);
  const double s = (m - 1.0) / (m + 1.0), square = s * s;
  double p = 1.0 / 23;
  p = p * square + 1.0 / 21;
  p = p * square + 1.0 / 19;
  p = p * square + 1.0 / 17;
  p = p * square + 1.0 / 15;
  p = p * square + 1.0 / 13;
  p = p * square + 1.0 / 11;
  p = p * square + 1.0 / 9;
  p = p * square + 1.0 / 7;
  p = p * square + 1.0 / 5;
  p = p * square + 1.0 / 3;
  const double twice = s + s;
  const double low = twice * (p * square) + e * 1.90821492927058770002e-10;
  return (twice + low) + e * 6.93147180369123816490e-1;
}

// Exponential of a float (Cephes' expf), at least 2^-126; x up to 88.
ROBUSTPERF_HD inline float exp_of(float x) {
  const float y = max_of(min_of(x, 88.0f), -87.3f);
  const float rounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
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

// The scalar and the integer type of a number, or of the CPU's vector of numbers, which cpu/simd.hpp adds.
template <typename V>
struct VectorTraits;

template <typename T, typename Integer>
struct ScalarTraits {
  using Scalar = T;
  using Bits = Integer;
  // NaN stays NaN.
  ROBUSTPERF_HD static constexpr T at_least(T lowest, T x) { return lowest > x ? lowest : x; }
};
template <>
struct VectorTraits<float> : ScalarTraits<float, uint32_t> {};
template <>
struct VectorTraits<double> : ScalarTraits<double, uint64_t> {};

// 2^r for |r| <= 1/2 and exactly 1 at 0: minimax polynomials, relative error 1e-7 and 4e-18 before rounding. Their
// terms are paired (Estrin's scheme), since each step of Horner's rule waits for the one before.
template <typename V>
ROBUSTPERF_HD inline V exp2_of(V r, float) {
  const V square = r * r;
  const V low = r * 6.931469776e-1f + 1.0f;
  const V middle = r * 5.550733743e-2f + 2.402224209e-1f;
  const V high = r * 1.326472714e-3f + 9.671512640e-3f;
  return (high * square + middle) * square + low;
}

template <typename V>
ROBUSTPERF_HD inline V exp2_of(V r, double) {
  const V square = r * r, fourth = square * square;
  const V p0 = r * 6.9314718055994533e-1 + 1.0;
  const V p2 = r * 5.5504108664820083e-2 + 2.4022650695910131e-1;
  const V p4 = r * 1.3333558146774621e-3 + 9.6181291075941201e-3;
  const V p6 = r * 1.5252733493127489e-5 + 1.5403530457112092e-4;
  const V p8 = r * 1.0178199571842138e-7 + 1.3215435282308488e-6;
  const V p10 = r * 4.4347712982003767e-10 + 7.0737832485032331e-9;
  return ((p10 * square + p8) * fourth + (p6 * square + p4)) * fourth + (p2 * square + p0);
}

// e^x for x <= 0, at least about 2^-126 (2^-1022 for double); NaN where x is. Faster than exp_of: its error relative to
// e^x grows with |x|, but is small relative to e^0, the largest term of a sum of exponentials. V is float, double or
// the CPU's vector of either.
template <typename V>
ROBUSTPERF_HD inline V exp_below_zero(V x) {
  using T = typename VectorTraits<V>::Scalar;
  using Bits = typename VectorTraits<V>::Bits;
  constexpr bool kWide = sizeof(T) == sizeof(double);
  constexpr T kLowest = kWide ? T(-1022) : T(-126);
  constexpr int kFraction = kWide ? 52 : 23;
  // Added to t, it puts the nearest integer n plus the exponent's bias into the lowest bits.
  constexpr T kRound = kWide ? T(0x1.8p52 + 1023) : T(0x1.8p23 + 127);
  const V t = VectorTraits<V>::at_least(V{} + kLowest, x * T(1.4426950408889634));
  const V shifted = t + kRound;
  const V scale = bits_as<V>(bits_as<Bits>(shifted) << kFraction);  // 2^n
  return exp2_of(t - (shifted - kRound), T()) * scale;
}

}  // namespace robustperf::ROBUSTPERF_TARGET
