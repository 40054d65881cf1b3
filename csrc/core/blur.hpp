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

// The Gaussian's bell at a distance, or a sum of such values, and the derivative in sigma.
struct Bell {
  double value, slope;
};

ROBUSTPERF_HD inline Bell bell_at(int j, double sigma) {
  if (j == 0 || sigma <= 0) return {j == 0 ? 1.0 : 0.0, 0.0};
  const double value = ::exp(-0.5 * j * j / (sigma * sigma));
  return {value, value * j * j / (sigma * sigma * sigma)};
}

// Over all taps, both sides.
ROBUSTPERF_HD inline Bell sum_of_bells(const Bell* bells, int radius) {
  Bell sum{bells[0].value, 0.0};
  for (int j = 1; j <= radius; ++j) {
    sum.value += 2 * bells[j].value;
    sum.slope += 2 * bells[j].slope;
  }
  return sum;
}

template <typename T>
ROBUSTPERF_HD inline void set_tap(Taps<T>& taps, int j, Bell bell, Bell sum) {
  taps.weight[j] = static_cast<T>(bell.value / sum.value);
  taps.slope[j] = static_cast<T>(bell.value > 0 ? (bell.slope - bell.value * sum.slope / sum.value) / sum.value : 0);
}

ROBUSTPERF_HD inline int64_t mirrored(int64_t i, int64_t size) {
  return i < 0 ? -i : i >= size ? 2 * (size - 1) - i : i;
}

}  // namespace robustperf::ROBUSTPERF_ISA
