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

#include "box_projection.hpp"
#include "target.hpp"

namespace robustperf {

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

// V is double, or the CPU's vector of doubles.

template <Norm P, typename V>
ROBUSTPERF_HD inline V reach(V t, V weight) {
  return P == Norm::two ? t * weight : t;
}

// A coordinate's contribution to the two sums at t.
template <Norm P, typename V>
ROBUSTPERF_HD inline Sums<V> sums_of(V t, V weight, V h) {
  const auto saturated = reach<P>(t, weight) >= h;
  return {saturated ? weight * h : V{}, saturated ? V{} : reach<P>(weight, weight)};
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

// p = 1: among the weights in [low, high) is the one at which the mass of the heavier weights reaches c.
struct Selection {
  double low, high;
  double mass, count;  // of the weights >= high
  double inside;       // the number of weights in [low, high)
};

// Narrows [0, above) until at most `few` weights are left, or only equal ones. `mass_from(t)` returns mass_of over all
// coordinates.
template <typename MassFrom>
ROBUSTPERF_HD inline Selection weighted_select(double c, double above, double count, double few, MassFrom&& mass_from) {
  Selection s{0.0, above, 0.0, 0.0, count};
  for (int pass = 0; s.inside > few && divisible(s.low, s.high); ++pass) {
    const double middle = middle_of(s.low, s.high, pass);
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
