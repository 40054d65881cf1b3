// How the components of delta come from random words, and what noise makes of them.
#pragma once

#include "philox.hpp"
#include "program.hpp"

namespace robustperf::ROBUSTPERF_ISA {

// Uniform in [lower, upper] from u in [0, 1).
ROBUSTPERF_HD inline float between(float lower, float upper, float u) {
  return smaller(lower + (upper - lower) * u, upper);
}

// Component j of a step's delta from its random word; of a ball's, before that is scaled.
ROBUSTPERF_HD inline float component_of(const Step& step, int64_t j, uint32_t word) {
  const int bounds = step.law == kBox ? static_cast<int>(j) : 0;
  const float lower = static_cast<float>(step.numbers[bounds]),
              upper = static_cast<float>(step.numbers[kBounds + bounds]);
  if (step.law == kBall) return normal_of(word);
  if (step.law == kNormal) return upper * normal_of(word);
  return step.law == kFogLaw && j > 0 ? uniform_of(word) : between(lower, upper, uniform_of(word));
}

// What a vector of `dim` standard normals with this sum of squares is multiplied by, to become a uniform point of the
// ball of this radius: the direction is the normals', u^(1/dim) the share of the radius.
ROBUSTPERF_HD inline double ball_scale(double radius, double squares, float u, int64_t dim) {
  return squares > 0 ? radius * ::pow(static_cast<double>(u), 1.0 / static_cast<double>(dim)) / ::sqrt(squares) : 0.0;
}

// Beyond this mean e^-mean is no longer normal. Images in [0, 1] stay below it, others are white there anyway.
constexpr double kMostMean = 700;

// The least n with P(Poisson(mean) <= n) > u; in double, so that a word decides the same everywhere.
ROBUSTPERF_HD inline double poisson_quantile(double mean, double u) {
  mean = smaller(mean, kMostMean);
  double n = 0, term = ::exp(-mean), sum = term;
  // The last term ends the sum where rounding has left it below u.
  while (sum <= u && term > 0) {
    n += 1;
    term *= mean / n;
    sum += term;
  }
  return n;
}

// Salt and pepper: u below half of the share is black, above 1 - half is white.
template <typename T>
ROBUSTPERF_HD constexpr T salted(T x, T u, T half) {
  return u < half ? T(0) : u >= T(1) - half ? T(1) : x;
}

}  // namespace robustperf::ROBUSTPERF_ISA
