// Four numbers side by side, and four such quads turned.
#pragma once

#include "../core/platform.hpp"

#ifdef __clang__
#define ROBUSTPERF_SHUFFLE(type, a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define ROBUSTPERF_SHUFFLE(type, a, b, i, j, k, l) __builtin_shuffle(a, b, type{i, j, k, l})
#endif

namespace robustperf::ROBUSTPERF_ISA {

template <typename T>
struct QuadOf;
template <>
struct QuadOf<float> {
  typedef float Quad __attribute__((vector_size(16)));
  typedef int32_t Places __attribute__((vector_size(16)));
};
template <>
struct QuadOf<double> {
  typedef double Quad __attribute__((vector_size(32)));
  typedef int64_t Places __attribute__((vector_size(32)));
};

template <typename Vector, typename T>
inline void take(Vector& to, const T* from) {
  memcpy(&to, from, sizeof to);
}
template <typename Vector, typename T>
inline void put(T* to, const Vector& from) {
  memcpy(to, &from, sizeof from);
}

// Rows i of four quads become columns.
template <typename T>
inline void transpose(typename QuadOf<T>::Quad (&q)[4]) {
  using P [[maybe_unused]] = typename QuadOf<T>::Places;
  const auto low01 = ROBUSTPERF_SHUFFLE(P, q[0], q[1], 0, 4, 1, 5),
             low23 = ROBUSTPERF_SHUFFLE(P, q[2], q[3], 0, 4, 1, 5),
             high01 = ROBUSTPERF_SHUFFLE(P, q[0], q[1], 2, 6, 3, 7),
             high23 = ROBUSTPERF_SHUFFLE(P, q[2], q[3], 2, 6, 3, 7);
  q[0] = ROBUSTPERF_SHUFFLE(P, low01, low23, 0, 1, 4, 5);
  q[1] = ROBUSTPERF_SHUFFLE(P, low01, low23, 2, 3, 6, 7);
  q[2] = ROBUSTPERF_SHUFFLE(P, high01, high23, 0, 1, 4, 5);
  q[3] = ROBUSTPERF_SHUFFLE(P, high01, high23, 2, 3, 6, 7);
}

}  // namespace robustperf::ROBUSTPERF_ISA
