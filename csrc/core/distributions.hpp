// The distributions of delta: its components from random words. And the noise that some transforms make of them.
#pragma once

#include "philox.hpp"
#include "program.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

// Uniform in [lower, upper] from u in [0, 1).
ROBUSTPERF_HD inline float uniform_between(float lower, float upper, float u) {
  return min_of(lower + (upper - lower) * u, upper);
}

// Component j of a step's delta from its random word; a ball's before it is scaled.
ROBUSTPERF_HD inline float component_of(const Step& step, int64_t j, uint32_t word) {
  const int bounds = step.distribution == kBox ? static_cast<int>(j) : 0;
  const float lower = static_cast<float>(step.lower[bounds]), upper = static_cast<float>(step.upper[bounds]);
  if (step.distribution == kBall) return normal_of(word);
  if (step.distribution == kNormal) return upper * normal_of(word);
  return step.distribution == kFogDistribution && j > 0 ? uniform_of(word)
                                                        : uniform_between(lower, upper, uniform_of(word));
}

// The factor that turns a vector of `dim` standard normals with this sum of squares into a uniform point of the ball of
// this radius: the normals give the direction, u^(1/dim) is the fraction of the radius.
ROBUSTPERF_HD inline double ball_scale(double radius, double squares, float u, int64_t dim) {
  return squares > 0 ? radius * ::pow(static_cast<double>(u), 1.0 / static_cast<double>(dim)) / ::sqrt(squares) : 0.0;
}

// Beyond this mean e^-mean is a subnormal number. Images in [0, 1] stay below it; others are white there anyway.
constexpr double kMaxMean = 700;

// The least n with P(Poisson(mean) <= n) > u; in double, so that a word gives the same count everywhere.
ROBUSTPERF_HD inline double poisson_quantile(double mean, double u) {
  mean = min_of(mean, kMaxMean);
  double n = 0, term = ::exp(-mean), sum = term;
  // A term of 0 ends the loop where rounding keeps the sum below u.
  while (sum <= u && term > 0) {
    n += 1;
    term *= mean / n;
    sum += term;
  }
  return n;
}

// Salt and pepper: black for u below half of the fraction that is replaced, white for u above 1 - half.
template <typename T>
ROBUSTPERF_HD constexpr T salt_and_pepper(T x, T u, T half) {
  return u < half ? T(0) : u >= T(1) - half ? T(1) : x;
}

}  // namespace robustperf::ROBUSTPERF_TARGET
