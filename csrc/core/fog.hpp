// The density field of fog: a sum of lattices of random numbers, bilinear between the nodes. Each lattice (an octave)
// is twice as fine as the one before and has half its weight.
#pragma once

#include "program.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

// The first node of an octave's lattice.
ROBUSTPERF_HD constexpr int64_t fog_offset(int octave) {
  int64_t nodes = 0;
  for (int o = 0; o < octave; ++o) nodes += int64_t{(2 << o) + 1} * ((2 << o) + 1);
  return nodes;
}
static_assert(fog_offset(kOctaves) == kFogNodes);

// 1, 1/2, 1/4, ... normalised to the sum 1.
ROBUSTPERF_HD constexpr double fog_weight(int octave) {
  return (1 << (kOctaves - 1 - octave)) / double((1 << kOctaves) - 1);
}

// Cells of the lattice per pixel.
template <typename T>
ROBUSTPERF_HD inline T cells_per_pixel(int cells, int64_t size) {
  return size > 1 ? T(cells) / static_cast<T>(size - 1) : T(0);
}

// A pixel's position on one axis of a lattice: between `node` and the next, at this fraction of the distance.
template <typename T>
struct NodePosition {
  int node;
  T fraction;
};

template <typename T>
ROBUSTPERF_HD inline NodePosition<T> node_position_of(int64_t pixel, int cells, int64_t size) {
  const T at = static_cast<T>(pixel) * cells_per_pixel<T>(cells, size);
  const int node = min_of(static_cast<int>(at), cells - 1);
  return {node, at - static_cast<T>(node)};
}

// One pixel's value of the field.
template <typename T>
ROBUSTPERF_HD inline T fog_at(const T* lattices, int64_t y, int64_t x, int64_t height, int64_t width) {
  T field = 0;
  for (int o = 0; o < kOctaves; ++o) {
    const int cells = 2 << o;
    const NodePosition<T> down = node_position_of<T>(y, cells, height), right = node_position_of<T>(x, cells, width);
    const T *upper = lattices + fog_offset(o) + down.node * (cells + 1) + right.node, *lower = upper + cells + 1;
    const T left = upper[0] + down.fraction * (lower[0] - upper[0]),
            next = upper[1] + down.fraction * (lower[1] - upper[1]);
    field += static_cast<T>(fog_weight(o)) * (left + right.fraction * (next - left));
  }
  return field;
}

}  // namespace robustperf::ROBUSTPERF_TARGET
