// What lets one source serve every instruction set and the GPU.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

// Arithmetic in core/ runs on the host and on the device, so that a machine without a GPU tests the device's.
#ifdef __CUDACC__
#define ROBUSTPERF_HD __host__ __device__
#else
#define ROBUSTPERF_HD
#endif

// Each instruction set compiles core/ and cpu/ into a namespace of its own: were two copies of an inline function to
// share a name, the linker would keep one of them, and an old processor could be handed the AVX-512 copy.
#ifndef ROBUSTPERF_ISA
#define ROBUSTPERF_ISA host
#endif

namespace robustperf::ROBUSTPERF_ISA {

// std::min and friends would be emitted under one name for all instruction sets.
template <typename T>
ROBUSTPERF_HD constexpr T smaller(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
ROBUSTPERF_HD constexpr T larger(T a, T b) {
  return a < b ? b : a;
}

ROBUSTPERF_HD inline float magnitude(float v) { return ::fabsf(v); }
ROBUSTPERF_HD inline double magnitude(double v) { return ::fabs(v); }

// True for every number but NaN and the infinities; spelled so that no compiler flag can fold it away.
ROBUSTPERF_HD constexpr bool finite(double v) { return v - v == 0.0; }

// The same bits under another type of the same size.
template <typename To, typename From>
ROBUSTPERF_HD inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace robustperf::ROBUSTPERF_ISA
