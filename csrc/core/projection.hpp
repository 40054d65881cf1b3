// The halfspace-box projection of Hein & Andriushchenko (2017), T [11]: the smallest |delta|_p with <w, delta> >= c
// and lower <= x + delta <= upper.
//
// With |w_i| = weight and the room h_i that the box leaves in the direction of w_i, the solution moves coordinate i by
// min(reach(t), h_i), where reach is t |w_i| for p = 2 and t for p = inf, and t is the root of
//   F(t) = sum_i |w_i| min(reach_i(t), h_i) = c.
// F is increasing, concave and piecewise linear: Newton's method from t = 0 climbs to the root from below and stops
// exactly, when the saturated set repeats. The number of steps is logarithmic in the range of the break points
// (Dinkelbach), a handful in practice; nothing is sorted. p = 1 saturates in the order of |w_i|: a weighted selection.
#pragma once

#include "platform.hpp"

namespace robustperf::ROBUSTPERF_ISA {

enum class Norm : int { one = 1, two = 2, inf = 3 };

// The room of a coordinate in the direction of w.
ROBUSTPERF_HD inline double room(double x, double w, double lower, double upper) {
  return w > 0.0 ? upper - x : x - lower;
}

// V is double, or the CPU's vector of doubles.
template <Norm P, typename V>
ROBUSTPERF_HD inline V reach(V t, V weight) {
  return P == Norm::two ? t * weight : t;
}

template <typename V>
struct Sums {
  V saturated;  // sum of weight * h over the saturated coordinates
  V slope;      // sum of weight * d reach / dt over the others
};

// A coordinate's part in the two sums at t.
template <Norm P, typename V>
ROBUSTPERF_HD inline Sums<V> sums_of(V t, V weight, V h) {
  const auto saturated = reach<P>(t, weight) >= h;
  return {saturated ? weight * h : V{}, saturated ? V{} : reach<P>(weight, weight)};
}

// The root t of F(t) = c for c in (0, F(inf)]. `sums_at(t)` adds sums_of over the coordinates.
template <typename SumsAt>
ROBUSTPERF_HD inline double newton_root(double c, SumsAt&& sums_at) {
  double t = 0.0;
  while (true) {
    const Sums<double> sums = sums_at(t);
    if (sums.slope == 0.0) return HUGE_VAL;  // everything is saturated: the corner of the box
    const double next = (c - sums.saturated) / sums.slope;
    if (!(next > t)) return t;
    t = next;
  }
}

// p = 1: what the coordinates with weight >= t carry together.
template <typename V>
struct Mass {
  V mass;  // sum of weight * h
  V count;
};

template <typename V>
ROBUSTPERF_HD inline Mass<V> mass_of(V t, V weight, V h, V one) {
  const auto heavy = weight >= t;
  return {heavy ? weight * h : V{}, heavy ? one : V{}};
}

// p = 1: the largest weight t with mass{weight >= t} >= c, by halving the bit patterns, which for non-negative floats
// are in the order of their values. Ends early when one weight is left between the two, which is the usual case.
// `mass_from(t)` adds up Mass, `only_between(t0, t1)` gives the one weight in [t0, t1).
template <typename Bits, typename FromBits, typename MassFrom, typename OnlyBetween>
ROBUSTPERF_HD inline double weighted_select(double c, Bits low, Bits high, double count, FromBits&& from_bits,
                                            MassFrom&& mass_from, OnlyBetween&& only_between) {
  double count_low = count, count_high = 0.0;  // weights >= low, >= high
  while (high - low > 1) {
    if (count_low - count_high == 1.0) return only_between(from_bits(low), from_bits(high));
    const Bits middle = low + (high - low) / 2;
    const Mass<double> found = mass_from(from_bits(middle));
    if (found.mass >= c) low = middle, count_low = found.count;
    else high = middle, count_high = found.count;
  }
  return from_bits(low);
}

}  // namespace robustperf::ROBUSTPERF_ISA
