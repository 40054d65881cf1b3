// What lets one source serve every instruction set and the GPU.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

// Arithmetic in core/ compiles for the host and the device, so that a machine without a GPU tests the device's.
#ifdef __CUDACC__
#define ROBUSTPERF_HD __host__ __device__
#else
#define ROBUSTPERF_HD
#endif

// Each instruction set compiles core/ and cpu/ into a namespace of its own, baseline, avx2 or avx512; a GPU's is
// `device`. If two copies of an inline function shared a name, the linker would keep one of them, and an old processor
// could run the AVX-512 copy. The bindings use `host`.
#ifndef ROBUSTPERF_TARGET
#define ROBUSTPERF_TARGET host
#endif

namespace robustperf::ROBUSTPERF_TARGET {

// Not std::min and std::max, which all instruction sets would emit under one name.
template <typename T>
ROBUSTPERF_HD constexpr T min_of(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
ROBUSTPERF_HD constexpr T max_of(T a, T b) {
  return a < b ? b : a;
}

ROBUSTPERF_HD inline float abs_of(float v) { return ::fabsf(v); }
ROBUSTPERF_HD inline double abs_of(double v) { return ::fabs(v); }

// False for NaN and the infinities. Written so that no compiler flag can optimise it away.
ROBUSTPERF_HD constexpr bool finite(double v) { return v - v == 0.0; }

// The same bits as another type of the same size.
template <typename To, typename From>
ROBUSTPERF_HD inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace robustperf::ROBUSTPERF_TARGET
