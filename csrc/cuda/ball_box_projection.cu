// The ball-box projection: one block per row, which it reads a handful of times; after the first pass the row is in the
// cache.
#include "../core/ball_box_projection.hpp"

#include <type_traits>

#include "launch.hpp"
#include "reduce.hpp"
#include "vector_access.hpp"

namespace robustperf::device {
namespace {

constexpr int kThreads = 256;

// One row. The threads of a block take kVector coordinates at a time.
template <Norm P, typename T, int kVector>
struct Row {
  const T *x, *delta, *lower, *upper;
  int64_t dim;
  double scale;     // of the sizes
  double h_scale;   // of h
  double* partial;  // shared memory of block_reduce

  // Calls body(i, x, delta, lower, upper), each a vector, for this thread's coordinates.
  template <typename Body>
  __device__ void each(Body&& body) const {
    for (int64_t i = threadIdx.x * kVector; i < dim; i += kThreads * kVector)
      body(i, read<kVector>(x + i), read<kVector>(delta + i), read<kVector>(lower + i), read<kVector>(upper + i));
  }

  // Three sums over the row: term(size, h) returns what to add.
  template <typename Term>
  __device__ Lowered<double> add_up(Term&& term) const {
    Lowered<double> sums{0.0, 0.0, 0.0};
    each([&](int64_t, auto xs, auto deltas, auto lowers, auto uppers) {
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        const double d = deltas[v];
        const Lowered<double> terms =
            term(size_of<P>(d, scale), room<double>(xs[v], d, lowers[v], uppers[v]) * h_scale);
        sums.total += terms.total;
        sums.above += terms.above;
        sums.full += terms.full;
      }
    });
    return {block_reduce(sums.total, partial, Sum{}), block_reduce(sums.above, partial, Sum{}),
            block_reduce(sums.full, partial, Sum{})};
  }
};

// p = 2: the level of the sphere, infinite for the corner; NaN where the radius is infinite and no corner bounds delta.
template <typename T, int kVector>
__device__ double level_of(const Row<Norm::two, T, kVector>& row, double radius, double) {
  const double scaled = radius * row.h_scale, target = scaled * scaled;
  const auto start = row.add_up([](double size, double h) -> Lowered<double> {
    return {size > 0.0 ? h * h : 0.0, h > 0.0 ? size * size : 0.0, 0.0};
  });
  if (!finite(radius) && !finite(start.total)) return NAN;
  if (start.total < target) return HUGE_VAL;
  return ::sqrt(newton_root(target, start.above, [&](double t) {
    const auto sums = row.add_up([=](double size, double h) -> Lowered<double> {
      const Sums<double> terms = squares_of(t, size, h);
      return {terms.saturated, terms.slope, 0.0};
    });
    return Sums<double>{sums.total, sums.above};
  }));
}

template <typename T, int kVector>
__device__ double level_of(const Row<Norm::one, T, kVector>& row, double radius, double largest) {
  const auto sums_at = [&](double t) {
    return row.add_up([=](double size, double h) { return lowered_by(t, size, h, 1.0); });
  };
  const Lowered<double> at_zero = sums_at(0.0);
  return at_zero.total <= radius ? 0.0 : threshold(radius, at_zero, largest, sums_at);
}

template <typename T, int kVector>
__device__ double level_of(const Row<Norm::inf, T, kVector>&, double radius, double) {
  return radius;
}

template <Norm P, int kVector, typename T>
__global__ void __launch_bounds__(kThreads)
    ball_box_projection_global(const __grid_constant__ BallBoxProjectionArgs<T> args) {
  __shared__ double partial[kMaxWarps];
  for (int64_t r = blockIdx.x; r < args.rows; r += gridDim.x) {
    Row<P, T, kVector> row{
        args.x + r * args.dim, args.delta + r * args.dim, args.lower, args.upper, args.dim, 1.0, 1.0, partial};
    double largest = 0.0, faults = 0.0;
    row.each([&](int64_t, auto xs, auto deltas, auto lowers, auto uppers) {
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        largest = max_of(largest, abs_of(static_cast<double>(deltas[v])));
        faults += sound<P>(xs[v], deltas[v], lowers[v], uppers[v]) ? 0.0 : 1.0;
      }
    });
    largest = block_reduce(largest, partial, Max{});
    faults = block_reduce(faults, partial, Sum{});
    const double radius = args.radius[r];
    BallStep step{0.0, 1.0};
    if (P == Norm::two) {
      row.scale = sizeof(T) == sizeof(double) ? scale_for(largest) : 1.0;
      row.h_scale = scale_for(radius);
      step.unit = 1.0 / row.h_scale;
    }
    const bool solve = faults == 0.0 && radius > 0.0;
    if (solve) step.level = level_of(row, radius, largest);
    const bool valid = faults == 0.0 && radius >= 0.0 && step.level == step.level;
    T* out = args.out + r * args.dim;
    row.each([&](int64_t i, auto xs, auto deltas, auto lowers, auto uppers) {
      decltype(xs) moved;
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        const double d = deltas[v],
                     move = move_of<P>(step, size_of<P>(d, row.scale), room<double>(xs[v], d, lowers[v], uppers[v]));
        const T within = move_within(xs[v], deltas[v], move, lowers[v], uppers[v]);
        moved[v] = !valid ? static_cast<T>(NAN) : solve ? within : T(0);
      }
      write(out + i, moved);
    });
  }
}

}  // namespace

template <typename T>
void ball_box_projection(const BallBoxProjectionArgs<T>& args, Target target) {
  if (args.rows == 0) return;
  const auto run = [&](auto vector) {
    constexpr int kVector = decltype(vector)::value;
    by_norm(args.norm, [&](auto norm) {
      launch("ball_box_projection", ball_box_projection_global<decltype(norm)::value, kVector, T>, args.rows, kThreads,
             1, target.stream, args);
    });
  };
  constexpr int kVector = sizeof(T) == 4 ? 4 : 1;  // doubles, two at a time, would spill
  if (rows_of_16_bytes(args.dim, args.x, args.delta, args.lower, args.upper, args.out))
    run(std::integral_constant<int, kVector>{});
  else
    run(std::integral_constant<int, 1>{});
}

template void ball_box_projection(const BallBoxProjectionArgs<float>&, Target);
template void ball_box_projection(const BallBoxProjectionArgs<double>&, Target);

}  // namespace robustperf::device
