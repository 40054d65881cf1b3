// What the projections within a box share: how far a coordinate can move, and the root of an increasing, concave,
// piecewise linear function.
#pragma once

#include <type_traits>

#include "platform.hpp"

namespace robustperf {

// The numbers are those of the Python ops.
enum class Norm : int { one = 1, two = 2, inf = 3 };

// Calls f(std::integral_constant<Norm, norm>{}).
template <typename F>
void by_norm(Norm norm, F&& f) {
  if (norm == Norm::two)
    f(std::integral_constant<Norm, Norm::two>{});
  else if (norm == Norm::inf)
    f(std::integral_constant<Norm, Norm::inf>{});
  else
    f(std::integral_constant<Norm, Norm::one>{});
}

namespace ROBUSTPERF_TARGET {

// A power of two near 1 / largest, so that squares of doubles neither overflow nor underflow. The square of any float
// fits a double.
ROBUSTPERF_HD inline double scale_for(double largest) {
  return largest == 0.0 || !finite(largest) ? 1.0 : ::ldexp(1.0, min_of(1022, -::ilogb(largest)));
}

template <typename T>
ROBUSTPERF_HD inline T signed_move(double move, T w) {
  return w > T(0) ? static_cast<T>(move) : w < T(0) ? static_cast<T>(-move) : T(0);
}

// V is double, or the CPU's vector of doubles.

// h: how far the coordinate can move in the direction of w.
template <typename V>
ROBUSTPERF_HD inline V room(V x, V w, V lower, V upper) {
  return w > V{} ? upper - x : x - lower;
}

// Of F(t) = sum_i min(slope_i t, most_i).
template <typename V>
struct Sums {
  V saturated;  // sum of most over the saturated coordinates
  V slope;      // of the others
};

// The root t of F(t) = c for c in (0, F(inf)]. `slope` is that of F at 0; `sums_at(t)` returns the sums over all
// coordinates.
template <typename SumsAt>
ROBUSTPERF_HD inline double newton_root(double c, double slope, SumsAt&& sums_at) {
  double t = c / slope;
  while (true) {
    const Sums<double> sums = sums_at(t);
    // Every coordinate that matters is saturated: t is the root, or the corner of the box.
    if (sums.slope == 0.0) return sums.saturated >= c ? t : HUGE_VAL;
    const double next = (c - sums.saturated) / sums.slope;
    if (!(next > t)) return t;
    t = next;
  }
}

// Non-negative doubles are ordered like their bit patterns.
ROBUSTPERF_HD inline int64_t bits_of(double value) { return bits_as<int64_t>(value); }
ROBUSTPERF_HD inline double from_bits(int64_t bits) { return bits_as<double>(bits); }

// Whether there is a double between low and high.
ROBUSTPERF_HD inline bool divisible(double low, double high) { return bits_of(high) - bits_of(low) > 1; }

// A double between low and high, where to divide the interval at this pass. Halving the values takes a few passes for
// numbers of one order of magnitude; halving the bit patterns bounds the passes for all others.
ROBUSTPERF_HD inline double middle_of(double low, double high, int pass) {
  const int64_t between = bits_of(low) + (bits_of(high) - bits_of(low)) / 2;  // their sum could overflow
  const double half = pass < 16 ? low + 0.5 * (high - low) : from_bits(between);
  return half > low && half < high ? half : from_bits(bits_of(low) + 1);
}

}  // namespace ROBUSTPERF_TARGET
}  // namespace robustperf
