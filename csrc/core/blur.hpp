// The taps of a Gaussian blur. Beyond its edges the image is mirrored without repeating the edge.
#pragma once

#include "program.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

// The weights of the taps at distance 0 ... radius, and their derivatives in sigma.
template <typename T>
struct Taps {
  int radius;
  T weight[kMaxRadius + 1], slope[kMaxRadius + 1];
};

// The unnormalised Gaussian at a distance, or a sum of its values, and the derivative in sigma.
struct Gaussian {
  double value, slope;
};

ROBUSTPERF_HD inline Gaussian gaussian_at(int j, double sigma) {
  if (j == 0 || sigma <= 0) return {j == 0 ? 1.0 : 0.0, 0.0};
  const double value = ::exp(-0.5 * j * j / (sigma * sigma));
  return {value, value * j * j / (sigma * sigma * sigma)};
}

// Over all taps on both sides.
ROBUSTPERF_HD inline Gaussian sum_of_gaussians(const Gaussian* gaussians, int radius) {
  Gaussian sum{gaussians[0].value, 0.0};
  for (int j = 1; j <= radius; ++j) {
    sum.value += 2 * gaussians[j].value;
    sum.slope += 2 * gaussians[j].slope;
  }
  return sum;
}

template <typename T>
ROBUSTPERF_HD inline void set_tap(Taps<T>& taps, int j, Gaussian gaussian, Gaussian sum) {
  taps.weight[j] = static_cast<T>(gaussian.value / sum.value);
  taps.slope[j] =
      static_cast<T>(gaussian.value > 0 ? (gaussian.slope - gaussian.value * sum.slope / sum.value) / sum.value : 0);
}

ROBUSTPERF_HD inline int64_t mirrored(int64_t i, int64_t size) {
  return i < 0 ? -i : i >= size ? 2 * (size - 1) - i : i;
}

}  // namespace robustperf::ROBUSTPERF_TARGET
