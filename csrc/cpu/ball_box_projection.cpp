#include "../core/ball_box_projection.hpp"

#include "box_row.hpp"

namespace robustperf::ROBUSTPERF_TARGET {
namespace {

// What the first pass over a row finds.
struct Found {
  double faults;            // coordinates out of the box, infinite or NaN
  double mass, slope;       // p = 2: the square of the norm in the corner, and F's slope at 0
  Lowered<double> at_zero;  // p = 1
  double largest;           // p = 1: size
};

// Writes the sizes and, times h_scale, h into the scratch, which p = inf does not need.
template <Norm P, typename T>
Found prepare(const T* x, const T* delta, double scale, double h_scale, const BallBoxProjectionArgs<T>& args,
              const BoxRow<T>& row) {
  const int64_t dim = args.dim, vectorized = dim / kLanes * kLanes;
  const Doubles one = broadcast(1.0);
  Doubles faults[kRegisters] = {}, first[kRegisters] = {}, second[kRegisters] = {}, third[kRegisters] = {},
          largest[kRegisters] = {};
  const auto block = [&](const T* x_from, const T* delta_from, const T* lower_from, const T* upper_from, int64_t i) {
    for (int r = 0; r < kRegisters; ++r) {
      const int64_t at = r * kWidth;
      const Doubles xi = load(x_from + at), di = load(delta_from + at), lower = load(lower_from + at),
                    upper = load(upper_from + at);
      faults[r] += sound<P>(xi, di, lower, upper) ? Doubles{} : one;
      if constexpr (P != Norm::inf) {
        const Doubles size = size_of<P>(di, broadcast(scale)), h = room(xi, di, lower, upper) * h_scale;
        store(row.size + i + at, size);
        store(row.h + i + at, h);
        if constexpr (P == Norm::two) {
          first[r] += size > Doubles{} ? h * h : Doubles{};
          second[r] += h > Doubles{} ? size * size : Doubles{};
        } else {
          const Lowered<Doubles> terms = lowered_by(Doubles{}, size, h, one);
          first[r] += terms.total;
          second[r] += terms.above;
          third[r] += terms.full;
          largest[r] = size > largest[r] ? size : largest[r];
        }
      }
    }
  };
  for (int64_t i = 0; i < vectorized; i += kLanes) block(x + i, delta + i, args.lower + i, args.upper + i, i);
  if (vectorized < dim) {
    T tails[4][kLanes] = {};
    const T* whole[] = {x, delta, args.lower, args.upper};
    for (int k = 0; k < 4; ++k) memcpy(tails[k], whole[k] + vectorized, (dim - vectorized) * sizeof(T));
    block(tails[0], tails[1], tails[2], tails[3], vectorized);
  }
  Found found{};
  found.faults = sum_of_lanes(faults);
  if constexpr (P == Norm::two) {
    found.mass = sum_of_lanes(first);
    found.slope = sum_of_lanes(second);
  } else {
    found.at_zero = {sum_of_lanes(first), sum_of_lanes(second), sum_of_lanes(third)};
    found.largest = largest_lane(largest);
  }
  return found;
}

// In units of the radius.
template <typename T>
double level_of_sphere(const BoxRow<T>& row, const Found& found, double target) {
  if (found.mass < target) return HUGE_VAL;  // the corner
  return ::sqrt(newton_root(target, found.slope, [&](double t) {
    const auto sums = reduce<2>(row, [=](Doubles size, Doubles h) -> Terms<Doubles, 2> {
      const Sums<Doubles> terms = squares_of(broadcast(t), size, h);
      return {terms.saturated, terms.slope};
    });
    return Sums<double>{sums.values[0], sums.values[1]};
  }));
}

template <typename T>
double level_of_l1(const BoxRow<T>& row, const Found& found, double radius) {
  if (found.at_zero.total <= radius) return 0.0;
  return threshold(radius, found.at_zero, found.largest, [&](double t) {
    const auto sums = reduce<3>(row, [=](Doubles size, Doubles h) -> Terms<Doubles, 3> {
      const Lowered<Doubles> terms = lowered_by(broadcast(t), size, h, broadcast(1.0));
      return {terms.total, terms.above, terms.full};
    });
    return Lowered<double>{sums.values[0], sums.values[1], sums.values[2]};
  });
}

template <Norm P, typename T>
void move_all(const T* x, const T* delta, double scale, BallStep step, const BallBoxProjectionArgs<T>& args, T* out) {
  const T *lower = args.lower, *upper = args.upper;
#pragma omp simd
  for (int64_t i = 0; i < args.dim; ++i) {
    const double d = delta[i], h = room(double{x[i]}, d, double{lower[i]}, double{upper[i]});
    out[i] = move_within(x[i], delta[i], move_of<P>(step, size_of<P>(d, scale), h), lower[i], upper[i]);
  }
}

template <Norm P, typename T>
void project(const T* x, const T* delta, double radius, const BallBoxProjectionArgs<T>& args, double* scratch, T* out) {
  const double scale = P == Norm::two ? scale_of(delta, args.dim) : 1.0,
               h_scale = P == Norm::two ? scale_for(radius) : 1.0, target = radius * h_scale * (radius * h_scale);
  const BoxRow<T> row = row_in<T>(scratch, args.dim);
  const Found found = prepare<P>(x, delta, scale, h_scale, args, row);
  const bool unbounded = P == Norm::two && !finite(radius) && !finite(found.mass);
  if (found.faults != 0.0 || !(radius > 0.0) || unbounded) {
    const T fill = found.faults == 0.0 && radius == 0.0 ? T(0) : static_cast<T>(NAN);
    for (int64_t i = 0; i < args.dim; ++i) out[i] = fill;
    return;
  }
  BallStep step{radius, 1.0 / h_scale};
  if constexpr (P == Norm::two) step.level = level_of_sphere(row, found, target);
  if constexpr (P == Norm::one) step.level = level_of_l1(row, found, radius);
  move_all<P>(x, delta, scale, step, args, out);
}

}  // namespace

template <typename T>
void ball_box_projection(const BallBoxProjectionArgs<T>& args, Target target) {
  by_norm(args.norm, [&](auto norm) {
    constexpr Norm P = decltype(norm)::value;
    each_row(args.rows, args.dim, target.threads, [&](int64_t row, double* scratch) {
      const int64_t first = row * args.dim;
      project<P>(args.x + first, args.delta + first, args.radius[row], args, scratch, args.out + first);
    });
  });
}

template void ball_box_projection(const BallBoxProjectionArgs<float>&, Target);
template void ball_box_projection(const BallBoxProjectionArgs<double>&, Target);

}  // namespace robustperf::ROBUSTPERF_TARGET
