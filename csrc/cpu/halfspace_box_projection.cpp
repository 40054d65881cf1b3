#include "../core/halfspace_box_projection.hpp"

#include "box_row.hpp"

namespace robustperf::ROBUSTPERF_TARGET {
namespace {

// A row, prepared.
template <typename T>
struct Row : BoxRow<T> {
  double mass;     // sum of weight * h
  double slope;    // of F at 0
  double largest;  // weight
  double faults;   // coordinates out of the box, infinite or NaN
};

// Writes the weights and h into the scratch and computes the sums that every norm starts from.
template <Norm P, typename T>
Row<T> prepare(const T* x, const T* w, double scale, const HalfspaceBoxProjectionArgs<T>& args, double* scratch) {
  const int64_t dim = args.dim, vectorized = dim / kLanes * kLanes;
  Row<T> row{row_in<T>(scratch, dim), 0.0, 0.0, 0.0, 0.0};
  const Doubles lower = broadcast(args.lower), upper = broadcast(args.upper), one = broadcast(1.0);
  Doubles mass[kRegisters] = {}, slope[kRegisters] = {}, largest[kRegisters] = {}, faults[kRegisters] = {};
  const auto block = [&](const T* x_from, const T* w_from, int64_t i) {
    for (int r = 0; r < kRegisters; ++r) {
      const Doubles xi = load(x_from + r * kWidth), wi = load(w_from + r * kWidth);
      const Doubles v = (wi < Doubles{} ? -wi : wi) * scale, h = room(xi, wi, lower, upper);
      store(row.size + i + r * kWidth, v);
      store(row.h + i + r * kWidth, h);
      mass[r] += v * h;
      slope[r] += h > Doubles{} ? reach<P>(v, v) : Doubles{};
      largest[r] = v > largest[r] ? v : largest[r];
      // infinity or NaN minus itself is not zero
      faults[r] += (xi >= lower) & (xi <= upper) & (wi - wi == Doubles{}) ? Doubles{} : one;
    }
  };
  for (int64_t i = 0; i < vectorized; i += kLanes) block(x + i, w + i, i);
  if (vectorized < dim) {
    T x_tail[kLanes], w_tail[kLanes];
    for (int64_t l = 0; l < kLanes; ++l) {
      const bool there = vectorized + l < dim;
      x_tail[l] = there ? x[vectorized + l] : static_cast<T>(args.lower);
      w_tail[l] = there ? w[vectorized + l] : T(0);
    }
    block(x_tail, w_tail, vectorized);
    for (int64_t i = dim; i < row.padded; ++i) row.h[i] = 0.0;
  }
  row.mass = sum_of_lanes(mass);
  row.slope = sum_of_lanes(slope);
  row.largest = largest_lane(largest);
  row.faults = sum_of_lanes(faults);
  return row;
}

// p = 2 and inf: every coordinate moves by min(reach(t), h).
template <Norm P, typename T>
void move_all(const Row<T>& row, const T* w, double t, T* delta, int64_t dim) {
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) delta[i] = signed_move(min_of(reach<P>(t, double{row.size[i]}), row.h[i]), w[i]);
}

template <Norm P, typename T>
double multiplier(const Row<T>& row, double c) {
  return newton_root(c, row.slope, [&](double t) {
    const auto sums = reduce<2>(row, [=](Doubles v, Doubles h) -> Terms<Doubles, 2> {
      const Sums<Doubles> terms = sums_of<P>(broadcast(t), v, h);
      return {terms.saturated, terms.slope};
    });
    return Sums<double>{sums.values[0], sums.values[1]};
  });
}

// p = 1: in the order of their weights, the heaviest first and of equal weights the lower index, coordinates move as
// far as the box allows, the last one only in part.
template <typename T>
void move_heaviest(const Row<T>& row, const T* w, double c, T* delta, int64_t dim) {
  constexpr int kFew = 16;
  const Selection s =
      weighted_select(c, from_bits(bits_of(row.largest) + 1), static_cast<double>(row.padded), kFew, [&](double t) {
        const auto sums = reduce<2>(row, [=](Doubles v, Doubles h) -> Terms<Doubles, 2> {
          const Mass<Doubles> terms = mass_of(broadcast(t), v, h, broadcast(1.0));
          return {terms.mass, terms.count};
        });
        return Mass<double>{sums.values[0], sums.values[1]};
      });
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) delta[i] = signed_move(double{row.size[i]} >= s.high ? row.h[i] : 0.0, w[i]);
  int64_t order[kFew];  // of the few weights in [low, high), the heaviest first
  int count = 0;
  double left = c - s.mass;
  const auto move = [&](int64_t i) {
    const double rest = left / row.size[i];
    const bool last = rest <= row.h[i];
    if (left > 0.0) delta[i] = signed_move(last ? rest : row.h[i], w[i]);
    left = last ? 0.0 : left - row.h[i] * row.size[i];  // exactly 0: a rounding error would move the next one
  };
  for (int64_t first = 0; first < row.padded; first += kLanes) {
    auto inside = Doubles{} < Doubles{};
    for (int r = 0; r < kRegisters; ++r) {
      const Doubles v = load(row.size + first + r * kWidth);
      inside |= (v >= broadcast(s.low)) & (v < broadcast(s.high));
    }
    int64_t any = 0;
    for (int l = 0; l < kWidth; ++l) any |= inside[l];
    if (any == 0) continue;
    for (int64_t i = first; i < min_of(first + kLanes, dim); ++i) {
      const double v = row.size[i];
      if (v < s.low || v >= s.high) continue;
      if (s.inside > kFew) {  // equal weights
        move(i);
        continue;
      }
      int place = count++;
      for (; place > 0 && row.size[order[place - 1]] < v; --place) order[place] = order[place - 1];
      order[place] = i;
    }
  }
  for (int k = 0; k < count; ++k) move(order[k]);
}

template <Norm P, typename T>
bool project(const T* x, const T* w, double c, const HalfspaceBoxProjectionArgs<T>& args, double* scratch, T* delta) {
  const int64_t dim = args.dim;
  const double scale = scale_of(w, dim);
  const Row<T> row = prepare<P>(x, w, scale, args, scratch);
  c *= scale;
  if (row.faults != 0.0 || c != c || c <= 0.0) {
    const T fill = c <= 0.0 && row.faults == 0.0 ? T(0) : static_cast<T>(NAN);
    for (int64_t i = 0; i < dim; ++i) delta[i] = fill;
    return fill == T(0);
  }
  const bool feasible = row.mass >= c;
  if (!feasible) {
    move_all<Norm::inf>(row, w, HUGE_VAL, delta, dim);
  } else if constexpr (P == Norm::one) {
    move_heaviest(row, w, c, delta, dim);
  } else {
    move_all<P>(row, w, multiplier<P>(row, c), delta, dim);
  }
  return feasible;
}

}  // namespace

template <typename T>
void halfspace_box_projection(const HalfspaceBoxProjectionArgs<T>& args, Target target) {
  by_norm(args.norm, [&](auto norm) {
    constexpr Norm P = decltype(norm)::value;
    each_row(args.rows, args.dim, target.threads, [&](int64_t row, double* scratch) {
      const int64_t first = row * args.dim;
      args.feasible[row] = project<P>(args.x + first, args.w + first, args.c[row], args, scratch, args.delta + first);
    });
  });
}

template void halfspace_box_projection(const HalfspaceBoxProjectionArgs<float>&, Target);
template void halfspace_box_projection(const HalfspaceBoxProjectionArgs<double>&, Target);

}  // namespace robustperf::ROBUSTPERF_TARGET
