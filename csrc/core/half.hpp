// The 16-bit floating-point numbers, widened, which is exact.
#pragma once

#include "arguments.hpp"
#include "elementary.hpp"

namespace robustperf::ROBUSTPERF_ISA {

// V is float or the CPU's vector of floats; the bits stand in the lower half of a word.
template <typename V>
ROBUSTPERF_HD inline V widened(typename Parts<V>::Bits bits, BFloat16) {
  return bits_as<V>(bits << 16);
}

template <typename V>
ROBUSTPERF_HD inline V widened(typename Parts<V>::Bits bits, Float16) {
  // With the fraction in its place the exponent is short of 127 - 15; beyond 65504 stand the infinities and NaN.
  const V size = bits_as<V>((bits & 0x7fffu) << 13) * 0x1p112f;
  const V sound = size < V{} + 0x1p16f ? size : bits_as<V>(bits_as<decltype(bits)>(size) | 0x7f800000u);
  return bits_as<V>(bits_as<decltype(bits)>(sound) | (bits & 0x8000u) << 16);
}

ROBUSTPERF_HD inline float number(float z) { return z; }
ROBUSTPERF_HD inline double number(double z) { return z; }
ROBUSTPERF_HD inline float number(BFloat16 z) { return widened<float>(uint32_t{z.bits}, z); }
ROBUSTPERF_HD inline float number(Float16 z) { return widened<float>(uint32_t{z.bits}, z); }

}  // namespace robustperf::ROBUSTPERF_ISA
