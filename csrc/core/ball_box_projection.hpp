// ball_box_projection: delta moved into the ball |delta|_p <= radius, or onto its sphere for p = 2, where
// lower <= x + delta <= upper.
//
// Write size_i = |delta_i| and let h_i be the distance from x_i to the box's bound in the direction of delta_i.
// Coordinate i moves by
//   p = inf: min(size_i, radius, h_i).
//   p = 1:   min((size_i - t)_+, h_i) with the least t >= 0 for which the sum is at most the radius. In t the sum is
//            piecewise linear. Newton's method within a bracket finds the piece with the root, and the root exactly.
//   p = 2:   min(s size_i, h_i) with the s of norm radius. In t = s^2 the square of the norm is
//            F(t) = sum_i min(size_i^2 t, h_i^2), increasing, concave and piecewise linear: Newton's method from below.
#pragma once

#include <type_traits>

#include "box_projection.hpp"
#include "target.hpp"

namespace robustperf {

template <typename T>
struct BallBoxProjectionArgs {
  const T* x;            // [rows, dim]
  const T* delta;        // [rows, dim]
  const double* radius;  // [rows]
  const T* lower;        // [dim]
  const T* upper;        // [dim]
  T* out;                // [rows, dim]
  int64_t rows, dim;
  Norm norm;
};

ROBUSTPERF_DECLARE_OP(template <typename T>
                      void ball_box_projection(const BallBoxProjectionArgs<T>& args, Target target))

namespace ROBUSTPERF_TARGET {

// How all coordinates of a row move.
struct BallStep {
  double level;  // s / unit for p = 2, infinite for the corner; t for p = 1; the radius for p = inf
  double unit;   // a power of two near the radius for p = 2
};

// p = 2: a size whose square would vanish beside that of the largest, which is near 1, counts as zero.
constexpr double kLeastSize = 0x1p-500;

// V is double, or the CPU's vector of doubles.

template <Norm P, typename V>
ROBUSTPERF_HD inline V size_of(V delta, V scale) {
  const V magnitude = delta < V{} ? -delta : delta;
  if constexpr (P != Norm::two) return magnitude;
  const V size = magnitude * scale;
  return size < V{} + kLeastSize ? V{} : size;
}

// Whether the row can be projected, as far as one coordinate tells. Infinity minus itself is not zero, nor is NaN.
template <Norm P, typename V>
ROBUSTPERF_HD inline auto sound(V x, V delta, V lower, V upper) {
  const auto inside = (x >= lower) & (x <= upper);
  if constexpr (P == Norm::inf)
    return inside & (delta == delta);
  else
    return inside & (delta - delta == V{});
}

// p = 2: a coordinate's contribution to F and its slope at t; `h` in units of the radius.
template <typename V>
ROBUSTPERF_HD inline Sums<V> squares_of(V t, V size, V h) {
  const V rate = size * size, most = h * h;
  const auto full = t * rate >= most;
  return {full ? most : V{}, full ? V{} : rate};
}

// p = 1: what the coordinates contribute at t.
template <typename V>
struct Lowered {
  V total;  // sum of the moves
  V above;  // the number of coordinates that move
  V full;   // the number of those beyond their bound
};

template <typename V>
ROBUSTPERF_HD inline Lowered<V> lowered_by(V t, V size, V h, V one) {
  const V excess = size - t;
  const auto above = excess > V{}, full = excess > h;
  return {above ? (full ? h : excess) : V{}, above ? one : V{}, full ? one : V{}};
}

// p = 1: the t in (0, largest] of total = radius > 0; `at_zero` has the sums at 0, where the total is larger;
// `sums_at(t)` returns them at t.
template <typename SumsAt>
ROBUSTPERF_HD inline double threshold(double radius, const Lowered<double>& at_zero, double largest, SumsAt&& sums_at) {
  double low = 0.0, high = largest, t = 0.0;
  Lowered<double> here = at_zero;
  for (int pass = 0; divisible(low, high); ++pass) {
    const double step = t + (here.total - radius) / (here.above - here.full);
    const bool newton = step > low && step < high && pass % 8 != 7;
    t = newton ? step : middle_of(low, high, pass / 8);
    const Lowered<double> found = sums_at(t);
    // Newton's step is exact where no break point was passed. Both numbers of coordinates fall with t.
    const bool same_piece = newton && found.above + found.full == here.above + here.full;
    if (same_piece || abs_of(found.total - radius) <= 0x1p-50 * radius) return t;
    (found.total > radius ? low : high) = t;
    here = found;
  }
  return high;
}

template <Norm P>
ROBUSTPERF_HD inline double move_of(const BallStep& step, double size, double h) {
  if constexpr (P == Norm::two) return min_of(size > 0.0 ? step.level * size * step.unit : 0.0, h);
  if constexpr (P == Norm::one) return min_of(max_of(size - step.level, 0.0), h);
  return min_of(min_of(size, step.level), h);
}

// The move in delta's direction, one unit in the last place shorter where x + move would be rounded beyond the box.
template <typename T>
ROBUSTPERF_HD inline T move_within(T x, T delta, double move, T lower, T upper) {
  using Bits = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  const T moved = signed_move(move, delta), sum = x + moved;
  const bool beyond = (sum < lower) | (sum > upper);
  return bits_as<T>(static_cast<Bits>(bits_as<Bits>(moved) - (beyond ? 1 : 0)));
}

}  // namespace ROBUSTPERF_TARGET
}  // namespace robustperf
