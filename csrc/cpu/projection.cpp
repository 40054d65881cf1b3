#include "../core/projection.hpp"
#include "kernels.hpp"
#include "lanes.hpp"
#include "parallel.hpp"

namespace robustperf::ROBUSTPERF_ISA {
namespace {

template <typename T>
struct Row {
  const T* weight;  // |w| times a power of two, padded with zeros to a multiple of kLanes
  const double* h;
  int64_t padded;
};

// Two sums over the row in one pass: term(weight, h) gives what to add to each.
template <typename T, typename Term>
auto reduce(const Row<T>& row, Term&& term) {
  Doubles first[kRegisters] = {}, second[kRegisters] = {};
  for (int64_t i = 0; i < row.padded; i += kLanes)
    for (int r = 0; r < kRegisters; ++r) {
      const auto [a, b] = term(load(row.weight + i + r * kWidth), load(row.h + i + r * kWidth));
      first[r] += a;
      second[r] += b;
    }
  struct {
    double first, second;
  } sums{add_up(first), add_up(second)};
  return sums;
}

template <Norm P, typename T>
double multiplier(const Row<T>& row, double c) {
  return newton_root(c, [&](double t) {
    const auto sums = reduce(row, [=](Doubles v, Doubles h) { return sums_of<P>(broadcast(t), v, h); });
    return Sums<double>{sums.first, sums.second};
  });
}

template <typename T>
Mass<double> mass_from(const Row<T>& row, double t) {
  const auto sums =
      reduce(row, [=](Doubles v, Doubles h) { return mass_of(broadcast(t), v, h, broadcast(1.0)); });
  return {sums.first, sums.second};
}

template <typename T>
T signed_move(double move, T w) {
  return w > T(0) ? static_cast<T>(move) : w < T(0) ? static_cast<T>(-move) : T(0);
}

template <Norm P, typename T>
void move_all(const Row<T>& row, const T* w, double t, T* delta, int64_t dim) {
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i)
    delta[i] = signed_move(smaller(reach<P>(t, double{row.weight[i]}), row.h[i]), w[i]);
}

// p = 1: coordinates heavier than the threshold saturate, those that equal it in the order of their index.
template <typename T>
void move_heaviest(const Row<T>& row, const T* w, double c, T* delta, int64_t dim) {
  constexpr bool wide = sizeof(T) == 8;
  const auto from_bits = [](int64_t bits) -> double {
    if constexpr (wide) {
      double value;
      memcpy(&value, &bits, sizeof value);
      return value;
    } else {
      const int32_t low = static_cast<int32_t>(bits);
      float value;
      memcpy(&value, &low, sizeof value);
      return value;
    }
  };
  const int64_t infinity = wide ? int64_t{0x7ff0000000000000} : int64_t{0x7f800000};
  const auto only_between = [&](double t0, double t1) {
    return reduce(row, [=](Doubles v, Doubles) {
      const auto between = (v >= broadcast(t0)) & (v < broadcast(t1));
      return Sums<Doubles>{between ? v : Doubles{}, Doubles{}};
    }).first;
  };
  const double t = weighted_select(
      c, int64_t{0}, infinity, static_cast<double>(row.padded), from_bits,
      [&](double threshold) { return mass_from(row, threshold); }, only_between);
  double left = c - reduce(row, [=](Doubles v, Doubles h) {
                      return Sums<Doubles>{v > broadcast(t) ? v * h : Doubles{}, Doubles{}};
                    }).first;
#pragma omp simd
  for (int64_t i = 0; i < dim; ++i) delta[i] = signed_move(row.weight[i] > t ? row.h[i] : 0.0, w[i]);
  for (int64_t i = 0; i < dim && left > 0.0; ++i) {
    if (double{row.weight[i]} != t) continue;
    const double move = smaller(row.h[i], left / t);
    delta[i] = signed_move(move, w[i]);
    left -= move * t;
  }
}

// A power of two near 1 / max |w|, so that squares of doubles neither overflow nor vanish. The square of any float
// fits a double as it is.
template <typename T>
double scale_of(const T* w, int64_t dim) {
  if constexpr (sizeof(T) == 4) {
    return 1.0;
  } else {
    double largest = 0.0;
    for (int64_t i = 0; i < dim; ++i) largest = larger(largest, magnitude(w[i]));
    if (largest == 0.0 || !finite(largest)) return 1.0;
    return ::ldexp(1.0, smaller(1022, -::ilogb(largest)));
  }
}

template <typename T>
bool project(const T* x, const T* w, double c, const ProjectionArgs<T>& args, double* scratch, T* delta) {
  const int64_t dim = args.dim, padded = (dim + kLanes - 1) / kLanes * kLanes;
  double* h = scratch;
  T* weight = reinterpret_cast<T*>(scratch + padded);
  const double scale = scale_of(w, dim), lower = args.lower, upper = args.upper;
  const T scale_t = static_cast<T>(scale);  // a power of two
  double faults = 0.0;                      // coordinates out of the box, not finite or not a number
  for (int64_t i = dim; i < padded; ++i) weight[i] = T(0), h[i] = 0.0;
#pragma omp simd reduction(+ : faults)
  for (int64_t i = 0; i < dim; ++i) {
    const double xi = x[i], wi = w[i];
    weight[i] = magnitude(w[i]) * scale_t;
    h[i] = room(xi, wi, lower, upper);
    faults += (xi >= lower) & (xi <= upper) & (wi - wi == 0.0) ? 0.0 : 1.0;
  }
  c *= scale;
  if (faults != 0.0 || c != c) {
    for (int64_t i = 0; i < dim; ++i) delta[i] = static_cast<T>(NAN);
    return false;
  }
  if (c <= 0.0) {
    for (int64_t i = 0; i < dim; ++i) delta[i] = T(0);
    return true;
  }
  const Row<T> row{weight, h, padded};
  const bool feasible = mass_from(row, 0.0).mass >= c;
  if (!feasible) {
    move_all<Norm::inf>(row, w, HUGE_VAL, delta, dim);
  } else if (args.norm == static_cast<int>(Norm::two)) {
    move_all<Norm::two>(row, w, multiplier<Norm::two>(row, c), delta, dim);
  } else if (args.norm == static_cast<int>(Norm::inf)) {
    move_all<Norm::inf>(row, w, multiplier<Norm::inf>(row, c), delta, dim);
  } else {
    move_heaviest(row, w, c, delta, dim);
  }
  return feasible;
}

}  // namespace

template <typename T>
void Kernels::halfspace_box_projection(const ProjectionArgs<T>& args, int threads) {
  parallel_rows(args.rows, threads, [&](int64_t row) {
    args.feasible[row] = project(args.x + row * args.dim, args.w + row * args.dim, args.c[row], args,
                                 args.scratch + thread_number() * projection_scratch(args.dim),
                                 args.delta + row * args.dim);
  });
}

template void Kernels::halfspace_box_projection<float>(const ProjectionArgs<float>&, int);
template void Kernels::halfspace_box_projection<double>(const ProjectionArgs<double>&, int);

}  // namespace robustperf::ROBUSTPERF_ISA
