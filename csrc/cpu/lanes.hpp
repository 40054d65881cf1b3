// Sums over a row of numbers in sixteen lanes, whatever the width of the registers: every instruction set adds in the
// same order and so gets the same bits. The lanes are the compilers' vector types, which stay in registers; arrays
// that a loop is asked to vectorise are written back to memory at every step.
#pragma once

#ifdef __AVX__
#include <immintrin.h>
#endif

#include "../core/platform.hpp"

namespace robustperf::ROBUSTPERF_ISA {

#if defined(__AVX512F__)
constexpr int kWidth = 8;
#elif defined(__AVX__)
constexpr int kWidth = 4;
#else
constexpr int kWidth = 2;
#endif
constexpr int kLanes = 16;
constexpr int kRegisters = kLanes / kWidth;

typedef double Doubles __attribute__((vector_size(kWidth * sizeof(double))));
typedef float Floats __attribute__((vector_size(kWidth * sizeof(float))));

inline Doubles load(const double* from) {
  Doubles to;
  memcpy(&to, from, sizeof to);
  return to;
}

inline Doubles load(const float* from) {
  // __builtin_convertvector serves all, but GCC 12 splits it in two where one instruction would do.
#if defined(__AVX512F__)
  return _mm512_cvtps_pd(_mm256_loadu_ps(from));
#elif defined(__AVX__)
  return _mm256_cvtps_pd(_mm_loadu_ps(from));
#else
  Floats to;
  memcpy(&to, from, sizeof to);
  return __builtin_convertvector(to, Doubles);
#endif
}

inline void store(double* to, Doubles value) { memcpy(to, &value, sizeof value); }

inline void store(float* to, Doubles value) {
#if defined(__AVX512F__)
  _mm256_storeu_ps(to, _mm512_cvtpd_ps(value));
#elif defined(__AVX__)
  _mm_storeu_ps(to, _mm256_cvtpd_ps(value));
#else
  const Floats narrow = __builtin_convertvector(value, Floats);
  memcpy(to, &narrow, sizeof narrow);
#endif
}

inline Doubles broadcast(double value) { return Doubles{} + value; }

inline double add_up(const Doubles (&lanes)[kRegisters]) {
  double sum = 0.0;
  for (int r = 0; r < kRegisters; ++r)
    for (int l = 0; l < kWidth; ++l) sum += lanes[r][l];
  return sum;
}

}  // namespace robustperf::ROBUSTPERF_ISA
