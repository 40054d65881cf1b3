// A row of a projection within a box: its prepared coordinates in scratch memory, and sums over them.
#pragma once

#include "../core/box_projection.hpp"
#include "buffer.hpp"
#include "parallel.hpp"
#include "simd.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

template <typename T>
struct BoxRow {
  T* size;    // of w or delta, times a power of two; padded with zeros to a multiple of kLanes
  double* h;  // how far the coordinate can move; padded with zeros
  int64_t padded;
};

constexpr int64_t padded_to_lanes(int64_t dim) { return (dim + kLanes - 1) / kLanes * kLanes; }

// Doubles of scratch for a row.
constexpr int64_t scratch_of_row(int64_t dim) { return 2 * padded_to_lanes(dim); }

template <typename T>
BoxRow<T> row_in(double* scratch, int64_t dim) {
  const int64_t padded = padded_to_lanes(dim);
  return {reinterpret_cast<T*>(scratch + padded), scratch, padded};
}

// Calls f(row, scratch) for each row, on several threads, each with a scratch of its own.
template <typename F>
void each_row(int64_t rows, int64_t dim, int threads, F&& f) {
  const int64_t size = scratch_of_row(dim);
  const Buffer<double> scratch(threads * size);
  parallel_rows(rows, threads, [&](int64_t row) { f(row, scratch.data() + thread_number() * size); });
}

template <typename V, int kCount>
struct Terms {
  V values[kCount];
};

// Sums over the row in one pass: term(size, h) returns the Terms to add.
template <int kCount, typename T, typename Term>
Terms<double, kCount> reduce(const BoxRow<T>& row, Term&& term) {
  Doubles sums[kCount][kRegisters] = {};
  for (int64_t i = 0; i < row.padded; i += kLanes)
    for (int r = 0; r < kRegisters; ++r) {
      const Terms<Doubles, kCount> terms = term(load(row.size + i + r * kWidth), load(row.h + i + r * kWidth));
      for (int k = 0; k < kCount; ++k) sums[k][r] += terms.values[k];
    }
  Terms<double, kCount> total;
  for (int k = 0; k < kCount; ++k) total.values[k] = sum_of_lanes(sums[k]);
  return total;
}

template <int kCount>
double largest_lane(const Doubles (&lanes)[kCount]) {
  double largest = 0.0;
  for (const Doubles& lane : lanes)
    for (int l = 0; l < kWidth; ++l) largest = max_of(largest, double{lane[l]});
  return largest;
}

// A power of two that brings doubles near 1; floats need none.
template <typename T>
double scale_of(const T* w, int64_t dim) {
  if constexpr (sizeof(T) == 4) {
    return 1.0;
  } else {
    double largest = 0.0;
    for (int64_t i = 0; i < dim; ++i) largest = max_of(largest, abs_of(w[i]));
    return scale_for(largest);
  }
}

}  // namespace robustperf::ROBUSTPERF_TARGET
