// The 16-bit floating-point types, and their exact conversion to float.
#pragma once

#include "elementary.hpp"

namespace robustperf {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

// The type in which an op computes on logits of type L.
template <typename L>
struct ComputeTypeOf {
  using Type = float;
};
template <>
struct ComputeTypeOf<double> {
  using Type = double;
};
template <typename L>
using ComputeType = typename ComputeTypeOf<L>::Type;

namespace ROBUSTPERF_TARGET {

// V is float or the CPU's vector of floats; the 16 bits are in the lower half of a word.
template <typename V>
ROBUSTPERF_HD inline V float_of_bits(typename VectorTraits<V>::Bits bits, BFloat16) {
  return bits_as<V>(bits << 16);
}

template <typename V>
ROBUSTPERF_HD inline V float_of_bits(typename VectorTraits<V>::Bits bits, Float16) {
  // With the fraction in its place the exponent is 127 - 15 too small. Beyond 65504 are the infinities and NaN.
  const V size = bits_as<V>((bits & 0x7fffu) << 13) * 0x1p112f;
  const V widened = size < V{} + 0x1p16f ? size : bits_as<V>(bits_as<decltype(bits)>(size) | 0x7f800000u);
  return bits_as<V>(bits_as<decltype(bits)>(widened) | (bits & 0x8000u) << 16);
}

ROBUSTPERF_HD inline float widen(float z) { return z; }
ROBUSTPERF_HD inline double widen(double z) { return z; }
ROBUSTPERF_HD inline float widen(BFloat16 z) { return float_of_bits<float>(uint32_t{z.bits}, z); }
ROBUSTPERF_HD inline float widen(Float16 z) { return float_of_bits<float>(uint32_t{z.bits}, z); }

}  // namespace ROBUSTPERF_TARGET
}  // namespace robustperf
