// The field of fog over the pixels of a tile.
#pragma once

#include "../core/fog.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

constexpr int kFinest = (1 << kOctaves) + 1;  // nodes a side of the finest lattice

// Splits the n pixels from `first` into runs within a row of the image and calls, for each run and octave,
// body(octave, cells, lattice row, fraction to the next one, the run's column, its place in the n pixels, its length).
template <typename T, typename Body>
inline void each_fog_row(int64_t first, int64_t n, int64_t height, int64_t width, Body&& body) {
  for (int64_t done = 0; done < n;) {
    const int64_t y = (first + done) / width, column = (first + done) % width;
    const int64_t count = min_of(n - done, width - column);
    for (int o = 0; o < kOctaves; ++o) {
      const int cells = 2 << o;
      const T v = static_cast<T>(y) * cells_per_pixel<T>(cells, height);
      const int row = min_of(static_cast<int>(v), cells - 1);
      body(o, cells, row, v - static_cast<T>(row), column, done, count);
    }
    done += count;
  }
}

template <typename T>
inline void fog_field(const T* lattices, int64_t first, int64_t n, int64_t height, int64_t width, T* field) {
  for (int64_t i = 0; i < n; ++i) field[i] = 0;
  each_fog_row<T>(
      first, n, height, width, [&](int o, int cells, int row, T fraction, int64_t column, int64_t done, int64_t count) {
        const T* upper = lattices + fog_offset(o) + row * (cells + 1);
        T nodes[kFinest];
        for (int i = 0; i <= cells; ++i) nodes[i] = upper[i] + fraction * (upper[i + cells + 1] - upper[i]);
        const T step = cells_per_pixel<T>(cells, width), weight = static_cast<T>(fog_weight(o));
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) {
          const T u = static_cast<T>(static_cast<int32_t>(column + i)) * step;
          const int32_t left = min_of(static_cast<int32_t>(u), cells - 1);
          field[done + i] += weight * (nodes[left] + (u - static_cast<T>(left)) * (nodes[left + 1] - nodes[left]));
        }
      });
}

// Adds the gradient in the lattices to d_lattices.
template <typename T>
inline void fog_backward(const T* d_field, int64_t first, int64_t n, int64_t height, int64_t width,
                         double* d_lattices) {
  each_fog_row<T>(first, n, height, width,
                  [&](int o, int cells, int row, T fraction, int64_t column, int64_t done, int64_t count) {
                    double nodes[kFinest] = {};
                    const T step = cells_per_pixel<T>(cells, width), weight = static_cast<T>(fog_weight(o));
                    for (int64_t i = 0; i < count; ++i) {
                      const T u = static_cast<T>(static_cast<int32_t>(column + i)) * step;
                      const int left = min_of(static_cast<int>(u), cells - 1);
                      const T right = u - static_cast<T>(left), g = weight * d_field[done + i];
                      nodes[left] += (T(1) - right) * g;
                      nodes[left + 1] += right * g;
                    }
                    double* upper = d_lattices + fog_offset(o) + row * (cells + 1);
                    for (int i = 0; i <= cells; ++i) {
                      upper[i] += (1.0 - fraction) * nodes[i];
                      upper[i + cells + 1] += fraction * nodes[i];
                    }
                  });
}

}  // namespace robustperf::ROBUSTPERF_TARGET
