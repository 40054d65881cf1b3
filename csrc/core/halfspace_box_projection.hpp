// halfspace_box_projection (Hein & Andriushchenko 2017, T [11]): the smallest |delta|_p with <w, delta> >= c and
// lower <= x + delta <= upper.
//
// Write |w_i| = weight and let h_i be the distance from x_i to the box's bound in the direction of w_i. The solution
// moves coordinate i by min(reach(t), h_i), where reach is t |w_i| for p = 2 and t for p = inf, and t is the root of
//   F(t) = sum_i |w_i| min(reach_i(t), h_i) = c.
// F is increasing, concave and piecewise linear: Newton's method from t = 0 approaches the root from below and stops
// exactly when the set of saturated coordinates repeats. The number of steps is logarithmic in the range of the break
// points (Dinkelbach), a handful in practice, and nothing is sorted. For p = 1 coordinates saturate in the order of
// |w_i|: a weighted selection.
#pragma once

#include "platform.hpp"
#include "target.hpp"

namespace robustperf {

// The numbers are those of the Python op.
enum class Norm : int { one = 1, two = 2, inf = 3 };

template <typename T>
struct HalfspaceBoxProjectionArgs {
  const T* x;       // [rows, dim]
  const T* w;       // [rows, dim]
  const double* c;  // [rows]
  T* delta;         // [rows, dim]
  bool* feasible;   // [rows]
  int64_t rows, dim;
  Norm norm;
  double lower, upper;
};

ROBUSTPERF_DECLARE_OP(template <typename T>
                      void halfspace_box_projection(const HalfspaceBoxProjectionArgs<T>& args, Target target))

namespace ROBUSTPERF_TARGET {

// A power of two near 1 / max |w|, so that squares of doubles neither overflow nor underflow. The square of any float
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

template <Norm P, typename V>
ROBUSTPERF_HD inline V reach(V t, V weight) {
  return P == Norm::two ? t * weight : t;
}

template <typename V>
struct Sums {
  V saturated;  // sum of weight * h over the saturated coordinates
  V slope;      // sum of weight * d reach / dt over the others
};

// A coordinate's contribution to the two sums at t.
template <Norm P, typename V>
ROBUSTPERF_HD inline Sums<V> sums_of(V t, V weight, V h) {
  const auto saturated = reach<P>(t, weight) >= h;
  return {saturated ? weight * h : V{}, saturated ? V{} : reach<P>(weight, weight)};
}

// The root t of F(t) = c for c in (0, F(inf)]. `slope` is that of F at 0, over the coordinates with h > 0; `sums_at(t)`
// returns sums_of over all coordinates.
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

// p = 1: what the coordinates with weight >= t contribute together.
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

// Non-negative doubles are ordered like their bit patterns.
ROBUSTPERF_HD inline int64_t bits_of(double value) { return bits_as<int64_t>(value); }
ROBUSTPERF_HD inline double from_bits(int64_t bits) { return bits_as<double>(bits); }

// p = 1: among the weights in [low, high) is the one at which the mass of the heavier weights reaches c.
struct Selection {
  double low, high;
  double mass, count;  // of the weights >= high
  double inside;       // the number of weights in [low, high)
};

// Narrows [0, above) until at most `few` weights are left, or only equal ones. `mass_from(t)` returns mass_of over all
// coordinates. Halving the values takes a few passes for weights of one order of magnitude; halving the bit patterns
// bounds the passes for all others.
template <typename MassFrom>
ROBUSTPERF_HD inline Selection weighted_select(double c, double above, double count, double few, MassFrom&& mass_from) {
  Selection s{0.0, above, 0.0, 0.0, count};
  for (int pass = 0; s.inside > few && bits_of(s.high) - bits_of(s.low) > 1; ++pass) {
    const int64_t between = bits_of(s.low) + (bits_of(s.high) - bits_of(s.low)) / 2;  // their sum could overflow
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

}  // namespace ROBUSTPERF_TARGET
}  // namespace robustperf
