// The field of fog: lattices of random numbers, each twice as fine as the one before and of half its weight, bilinear
// between the nodes.
#pragma once

#include "program.hpp"

namespace robustperf::ROBUSTPERF_ISA {

// The lattice of an octave begins here, counted in nodes.
ROBUSTPERF_HD constexpr int64_t fog_offset(int octave) {
  int64_t nodes = 0;
  for (int o = 0; o < octave; ++o) nodes += int64_t{(2 << o) + 1} * ((2 << o) + 1);
  return nodes;
}
static_assert(fog_offset(kOctaves) == kFogNodes);

// 1, 1/2, 1/4, ... brought to the sum 1.
ROBUSTPERF_HD constexpr double fog_weight(int octave) {
  return (1 << (kOctaves - 1 - octave)) / double((1 << kOctaves) - 1);
}

// Steps of the lattice for a pixel.
template <typename T>
ROBUSTPERF_HD inline T pitch(int cells, int64_t size) {
  return size > 1 ? T(cells) / static_cast<T>(size - 1) : T(0);
}

// Where a pixel lies on one axis of a lattice: after which node, and which share of the way to the next.
template <typename T>
struct Station {
  int node;
  T share;
};

template <typename T>
ROBUSTPERF_HD inline Station<T> station_of(int64_t place, int cells, int64_t size) {
  const T at = static_cast<T>(place) * pitch<T>(cells, size);
  const int node = smaller(static_cast<int>(at), cells - 1);
  return {node, at - static_cast<T>(node)};
}

// One pixel's value of the field.
template <typename T>
ROBUSTPERF_HD inline T fog_at(const T* lattices, int64_t y, int64_t x, int64_t height, int64_t width) {
  T field = 0;
  for (int o = 0; o < kOctaves; ++o) {
    const int cells = 2 << o;
    const Station<T> down = station_of<T>(y, cells, height), right = station_of<T>(x, cells, width);
    const T *upper = lattices + fog_offset(o) + down.node * (cells + 1) + right.node, *lower = upper + cells + 1;
    const T left = upper[0] + down.share * (lower[0] - upper[0]), next = upper[1] + down.share * (lower[1] - upper[1]);
    field += static_cast<T>(fog_weight(o)) * (left + right.share * (next - left));
  }
  return field;
}

}  // namespace robustperf::ROBUSTPERF_ISA
