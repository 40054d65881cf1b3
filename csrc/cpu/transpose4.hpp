// Vectors of four numbers, and the transposition of four of them.
#pragma once

#include "../core/platform.hpp"

#ifdef __clang__
#define ROBUSTPERF_SHUFFLE(type, a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define ROBUSTPERF_SHUFFLE(type, a, b, i, j, k, l) __builtin_shuffle(a, b, type{i, j, k, l})
#endif

namespace robustperf::ROBUSTPERF_TARGET {

template <typename T>
struct VectorOf4;
template <>
struct VectorOf4<float> {
  typedef float Type __attribute__((vector_size(16)));
  typedef int32_t Indices __attribute__((vector_size(16)));
};
template <>
struct VectorOf4<double> {
  typedef double Type __attribute__((vector_size(32)));
  typedef int64_t Indices __attribute__((vector_size(32)));
};

template <typename T>
using Vector4 = typename VectorOf4<T>::Type;

template <typename Vector, typename T>
inline void load4(Vector& to, const T* from) {
  memcpy(&to, from, sizeof to);
}
template <typename Vector, typename T>
inline void store4(T* to, const Vector& from) {
  memcpy(to, &from, sizeof from);
}

// The rows of the 4 x 4 matrix become its columns.
template <typename T>
inline void transpose(Vector4<T> (&q)[4]) {
  using P [[maybe_unused]] = typename VectorOf4<T>::Indices;
  const auto low01 = ROBUSTPERF_SHUFFLE(P, q[0], q[1], 0, 4, 1, 5),
             low23 = ROBUSTPERF_SHUFFLE(P, q[2], q[3], 0, 4, 1, 5),
             high01 = ROBUSTPERF_SHUFFLE(P, q[0], q[1], 2, 6, 3, 7),
             high23 = ROBUSTPERF_SHUFFLE(P, q[2], q[3], 2, 6, 3, 7);
  q[0] = ROBUSTPERF_SHUFFLE(P, low01, low23, 0, 1, 4, 5);
  q[1] = ROBUSTPERF_SHUFFLE(P, low01, low23, 2, 3, 6, 7);
  q[2] = ROBUSTPERF_SHUFFLE(P, high01, high23, 0, 1, 4, 5);
  q[3] = ROBUSTPERF_SHUFFLE(P, high01, high23, 2, 3, 6, 7);
}

}  // namespace robustperf::ROBUSTPERF_TARGET
