// The taps of a Gaussian blur, and what lies beyond the edges: the image mirrored, without repeating the edge.
#pragma once

#include "program.hpp"

namespace robustperf::ROBUSTPERF_ISA {

// Weights of the taps at distance 0 ... radius, and their derivatives in sigma.
template <typename T>
struct Taps {
  int radius;
  T weight[kMostRadius + 1], slope[kMostRadius + 1];
};

template <typename T>
ROBUSTPERF_HD inline Taps<T> taps_of(int radius, double sigma) {
  Taps<T> taps{};
  taps.radius = radius;
  double bell[kMostRadius + 1], steep[kMostRadius + 1], sum = 0, sum_steep = 0;
  for (int j = 0; j <= radius; ++j) {
    const bool point = j == 0 || sigma <= 0;
    bell[j] = point ? j == 0 : ::exp(-0.5 * j * j / (sigma * sigma));
    steep[j] = point ? 0 : bell[j] * j * j / (sigma * sigma * sigma);
    sum += (j == 0 ? 1 : 2) * bell[j];
    sum_steep += 2 * steep[j];
  }
  for (int j = 0; j <= radius; ++j) {
    taps.weight[j] = static_cast<T>(bell[j] / sum);
    taps.slope[j] = static_cast<T>(bell[j] > 0 ? (steep[j] - bell[j] * sum_steep / sum) / sum : 0);
  }
  return taps;
}

ROBUSTPERF_HD inline int64_t mirrored(int64_t i, int64_t size) { return i < 0 ? -i : i >= size ? 2 * (size - 1) - i : i; }

}  // namespace robustperf::ROBUSTPERF_ISA
