// SIMD registers. Sums over a row use sixteen lanes whatever the width of a register: every instruction set adds in the
// same order and so gets the same bits. The lanes are the compiler's vector types, which stay in registers; an array in
// a vectorised loop is written back to memory at every step.
#pragma once

#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "../core/half.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

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
  // Not __builtin_convertvector, which GCC 12 splits in two instructions.
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

// The sum of all lanes, one after the other, in double.
template <typename V, int kCount>
inline double sum_of_lanes(const V (&lanes)[kCount]) {
  double sum = 0.0;
  for (const V& lane : lanes)
    for (int l = 0; l < static_cast<int>(sizeof(V) / sizeof lane[0]); ++l) sum += lane[l];
  return sum;
}

// ---- full registers of float or of double, for arithmetic in the type of the data

typedef float FullFloats __attribute__((vector_size(2 * kWidth * sizeof(float))));
typedef uint32_t Words32 __attribute__((vector_size(2 * kWidth * sizeof(uint32_t))));
typedef uint64_t Words64 __attribute__((vector_size(kWidth * sizeof(uint64_t))));

// x86's maximum instruction returns its second operand where one is NaN; GCC 12 does not emit it for the comparison.
template <>
struct VectorTraits<FullFloats> {
  using Scalar = float;
  using Bits = Words32;
  static FullFloats at_least(FullFloats lowest, FullFloats x) {
#if defined(__AVX512F__)
    return _mm512_max_ps(lowest, x);
#elif defined(__AVX__)
    return _mm256_max_ps(lowest, x);
#elif defined(__SSE2__)
    return _mm_max_ps(lowest, x);
#else
    return lowest > x ? lowest : x;
#endif
  }
};
template <>
struct VectorTraits<Doubles> {
  using Scalar = double;
  using Bits = Words64;
  static Doubles at_least(Doubles lowest, Doubles x) {
#if defined(__AVX512F__)
    return _mm512_max_pd(lowest, x);
#elif defined(__AVX__)
    return _mm256_max_pd(lowest, x);
#elif defined(__SSE2__)
    return _mm_max_pd(lowest, x);
#else
    return lowest > x ? lowest : x;
#endif
  }
};

template <typename T>
struct FullRegister;
template <>
struct FullRegister<float> {
  using Type = FullFloats;
};
template <>
struct FullRegister<double> {
  using Type = Doubles;
};
template <typename T>
using RegisterOf = typename FullRegister<T>::Type;

template <typename T>
constexpr int kWidthOf = 2 * kWidth * sizeof(float) / sizeof(T);
template <typename T>
constexpr int kRegistersOf = kLanes / kWidthOf<T>;

// 0, 1, 2, ...
template <typename V>
inline V lane_numbers() {
  V lane;
  for (int l = 0; l < static_cast<int>(sizeof(V) / sizeof lane[0]); ++l) lane[l] = l;
  return lane;
}

// Reduces the lanes to one, half with half: the same order whatever the width of a register.
template <typename T, typename V, typename Join>
inline T reduce_lanes(const V& lanes, Join&& join) {
  constexpr int kHalf = sizeof(V) / sizeof(T) / 2;
  if constexpr (kHalf == 1) {
    return join(T{lanes[0]}, T{lanes[1]});
  } else {
    typedef T Half __attribute__((vector_size(kHalf * sizeof(T))));
    Half low, high;
    memcpy(&low, &lanes, sizeof low);
    memcpy(&high, reinterpret_cast<const char*>(&lanes) + sizeof low, sizeof high);
    return reduce_lanes<T>(join(low, high), join);
  }
}

// The same for the lanes of several registers, which it overwrites.
template <typename T, typename V, int kCount, typename Join>
inline T reduce_registers(V (&registers)[kCount], Join&& join) {
  for (int half = kCount / 2; half > 0; half /= 2)
    for (int r = 0; r < half; ++r) registers[r] = join(registers[r], registers[r + half]);
  return reduce_lanes<T>(registers[0], join);
}

inline Doubles read(const double* from) { return load(from); }

inline FullFloats read(const float* from) {
  FullFloats to;
  memcpy(&to, from, sizeof to);
  return to;
}

// Halves, widened.
template <typename Half>
inline FullFloats read(const Half* from) {
#if defined(__AVX512F__)
  const auto words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__AVX2__)
  const auto words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  typedef uint16_t Shorts __attribute__((vector_size(2 * kWidth * sizeof(uint16_t))));
  Shorts shorts;
  memcpy(&shorts, from, sizeof shorts);
  const auto words = __builtin_convertvector(shorts, Words32);
#endif
  return float_of_bits<FullFloats>((Words32)words, Half{});
}

inline void write(float* to, FullFloats value) { memcpy(to, &value, sizeof value); }
inline void write(double* to, Doubles value) { store(to, value); }

}  // namespace robustperf::ROBUSTPERF_TARGET
