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

// A power of two near 1 / max |w|, so that squares of doubles neither overflow nor vanish. The square of any float
// fits a double as it is.
ROBUSTPERF_HD inline double scale_for(double largest) {
  return largest == 0.0 || !finite(largest) ? 1.0 : ::ldexp(1.0, smaller(1022, -::ilogb(largest)));
}

template <typename T>
ROBUSTPERF_HD inline T signed_move(double move, T w) {
  return w > T(0) ? static_cast<T>(move) : w < T(0) ? static_cast<T>(-move) : T(0);
}

// V is double, or the CPU's vector of doubles.

// The room of a coordinate in the direction of w.
template <typename V>
ROBUSTPERF_HD inline V room(V x, V w, V lower, V upper) {
  return w > V{} ? upper - x : x - lower;
}

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

// The root t of F(t) = c for c in (0, F(inf)]. `slope` is that of F at 0, over the coordinates with room; `sums_at(t)`
// adds sums_of over the coordinates.
template <typename SumsAt>
ROBUSTPERF_HD inline double newton_root(double c, double slope, SumsAt&& sums_at) {
  double t = c / slope;
  while (true) {
    const Sums<double> sums = sums_at(t);
    // Everything that counts is saturated: at the root, or at the corner of the box.
    if (sums.slope == 0.0) return sums.saturated >= c ? t : HUGE_VAL;
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

// Doubles that are not negative are in the order of their bit patterns.
ROBUSTPERF_HD inline int64_t bits_of(double value) { return bits_as<int64_t>(value); }
ROBUSTPERF_HD inline double from_bits(int64_t bits) { return bits_as<double>(bits); }

// p = 1: the weights in [low, high) among which the one lies where the mass of the heavier ones reaches c.
struct Selection {
  double low, high;
  double mass, count;  // of the weights >= high
  double inside;       // how many are in [low, high)
};

// Narrows [0, above) until at most `few` weights are left, or equal ones only. `mass_from(t)` adds up mass_of.
// Halving the values takes a few passes for weights of one order of magnitude; halving the bit patterns ends it for
// any others.
template <typename MassFrom>
ROBUSTPERF_HD inline Selection weighted_select(double c, double above, double count, double few, MassFrom&& mass_from) {
  Selection s{0.0, above, 0.0, 0.0, count};
  for (int pass = 0; s.inside > few && bits_of(s.high) - bits_of(s.low) > 1; ++pass) {
    const int64_t between = bits_of(s.low) + (bits_of(s.high) - bits_of(s.low)) / 2;  // the sum might overflow
    const double half = pass < 16 ? s.low + 0.5 * (s.high - s.low) : from_bits(between);
    const double middle = half > s.low && half < s.high ? half : from_bits(bits_of(s.low) + 1);
    const Mass<double> found = mass_from(middle);
    if (found.mass >= c) {
      s.inside = found.count - s.count;
      s.low = middle;
    } else {
      s.inside -= found.count - s.count;
      s.high = middle, s.mass = found.mass, s.count = found.count;
    }
  }
  return s;
}

}  // namespace robustperf::ROBUSTPERF_ISA
