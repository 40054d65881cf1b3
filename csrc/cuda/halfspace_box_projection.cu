// The halfspace-box projection: one block per row, which it reads a handful of times; after the first pass the row is
// in the cache.
#include "../core/halfspace_box_projection.hpp"

#include <type_traits>

#include "launch.hpp"
#include "reduce.hpp"
#include "vector_access.hpp"

namespace robustperf::device {
namespace {

constexpr int kThreads = 256;

// One row. The threads of a block take kVector coordinates at a time.
template <typename T, int kVector>
struct Row {
  const T *x, *w;
  int64_t dim;
  double scale, lower, upper;
  double* partial;  // shared memory of block_reduce

  __device__ double weight_of(T w) const { return abs_of(static_cast<double>(w)) * scale; }
  __device__ double room_of(T x, T w) const {
    return room(static_cast<double>(x), static_cast<double>(w), lower, upper);
  }
  __device__ double weight(int64_t i) const { return weight_of(w[i]); }
  __device__ double h(int64_t i) const { return room_of(x[i], w[i]); }

  // Calls body(x, w) for this thread's coordinates.
  template <typename Body>
  __device__ void each(Body&& body) const {
    for (int64_t i = threadIdx.x * kVector; i < dim; i += kThreads * kVector) {
      const Vector<T, kVector> xs = read<kVector>(x + i), ws = read<kVector>(w + i);
#pragma unroll
      for (int v = 0; v < kVector; ++v) body(xs[v], ws[v]);
    }
  }

  // Writes move(weight, h), signed, to delta.
  template <typename Move>
  __device__ void move(T* delta, Move&& move) const {
    for (int64_t i = threadIdx.x * kVector; i < dim; i += kThreads * kVector) {
      const Vector<T, kVector> xs = read<kVector>(x + i), ws = read<kVector>(w + i);
      Vector<T, kVector> moved;
#pragma unroll
      for (int v = 0; v < kVector; ++v) moved[v] = signed_move(move(weight_of(ws[v]), room_of(xs[v], ws[v])), ws[v]);
      write(delta + i, moved);
    }
  }

  // Two sums over the row: term(weight, h) returns the pair to add.
  template <typename Term>
  __device__ auto add_up(Term&& term) const {
    double first = 0.0, second = 0.0;
    each([&](T x, T w) {
      const auto [a, b] = term(weight_of(w), room_of(x, w));
      first += a;
      second += b;
    });
    first = block_reduce(first, partial, Sum{});
    second = block_reduce(second, partial, Sum{});
    return decltype(term(0.0, 0.0)){first, second};
  }
};

// p = 2 and inf: every coordinate moves by min(reach(t), h).
template <Norm P, typename T, int kVector>
__device__ void move_all(const Row<T, kVector>& row, double t, T* delta) {
  row.move(delta, [=](double weight, double h) { return min_of(reach<P>(t, weight), h); });
}

// p = 1: in the order of their weights, the heaviest first and of equal weights the lower index, coordinates move as
// far as the box allows, the last one only in part.
template <typename T, int kVector>
__device__ void move_heaviest(const Row<T, kVector>& row, double c, double largest, T* delta) {
  const Selection s =
      weighted_select(c, from_bits(bits_of(largest) + 1), static_cast<double>(row.dim), 1.0,
                      [&](double t) { return row.add_up([=](double v, double h) { return mass_of(t, v, h, 1.0); }); });
  row.move(delta, [&](double weight, double h) { return weight >= s.high ? h : 0.0; });
  __syncthreads();  // before the first warp writes some of them again
  if (threadIdx.x >= kWarp) return;
  const int lane = threadIdx.x;
  double left = c - s.mass;
  for (int64_t from = 0; from < row.dim && left > 0.0; from += kWarp) {
    const int64_t i = from + lane;
    const double v = i < row.dim ? row.weight(i) : 0.0, h = i < row.dim ? row.h(i) : 0.0;
    const bool inside = i < row.dim && v >= s.low && v < s.high;
    if (__ballot_sync(kAllLanes, inside) == 0) continue;
    double sum = inside ? v * h : 0.0;  // of this lane and those before it
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const double before = __shfl_up_sync(kAllLanes, sum, offset);
      if (lane >= offset) sum += before;
    }
    const double before = __shfl_up_sync(kAllLanes, sum, 1), rest = (left - (lane == 0 ? 0.0 : before)) / v;
    // The first that need not move all the way is the last: a rounding error would move the next one.
    const unsigned ends = __ballot_sync(kAllLanes, inside && rest <= h);
    const int last = ends == 0 ? kWarp : __ffs(ends) - 1;
    if (inside && lane <= last) delta[i] = signed_move(lane == last ? rest : h, row.w[i]);
    const double all = __shfl_sync(kAllLanes, sum, kWarp - 1);
    left = ends == 0 ? left - all : 0.0;
  }
}

template <Norm P, int kVector, typename T>
__global__ void __launch_bounds__(kThreads)
    halfspace_box_projection_global(const __grid_constant__ HalfspaceBoxProjectionArgs<T> args) {
  __shared__ double partial[kMaxWarps];
  const auto join = [&](double value, auto how) { return block_reduce(value, partial, how); };
  for (int64_t r = blockIdx.x; r < args.rows; r += gridDim.x) {
    Row<T, kVector> row{args.x + r * args.dim, args.w + r * args.dim, args.dim, 1.0, args.lower, args.upper, partial};
    double mass = 0.0, slope = 0.0, largest = 0.0, faults = 0.0;
    if constexpr (sizeof(T) == sizeof(double)) {
      row.each([&](T, T w) { largest = max_of(largest, row.weight_of(w)); });
      row.scale = scale_for(join(largest, Max{}));
      largest = 0.0;
    }
    row.each([&](T place, T normal) {
      const double x = static_cast<double>(place), w = static_cast<double>(normal), v = row.weight_of(normal),
                   h = row.room_of(place, normal);
      mass += v * h;
      slope += h > 0.0 ? reach<P>(v, v) : 0.0;
      largest = max_of(largest, v);
      // infinity or NaN minus itself is not zero
      faults += x >= args.lower && x <= args.upper && w - w == 0.0 ? 0.0 : 1.0;
    });
    mass = join(mass, Sum{});
    slope = join(slope, Sum{});
    largest = join(largest, Max{});
    faults = join(faults, Sum{});
    const double c = args.c[r] * row.scale;
    T* delta = args.delta + r * args.dim;
    const bool valid = faults == 0.0 && c == c, feasible = valid && (c <= 0.0 || mass >= c);
    if (threadIdx.x == 0) args.feasible[r] = feasible;
    if (!valid || c <= 0.0) {
      for (int64_t i = threadIdx.x; i < args.dim; i += kThreads) delta[i] = valid ? T(0) : static_cast<T>(NAN);
    } else if (!feasible) {
      move_all<Norm::inf>(row, HUGE_VAL, delta);
    } else if constexpr (P == Norm::one) {
      move_heaviest(row, c, largest, delta);
    } else {
      const double t = newton_root(
          c, slope, [&](double t) { return row.add_up([=](double v, double h) { return sums_of<P>(t, v, h); }); });
      move_all<P>(row, t, delta);
    }
  }
}

}  // namespace

template <typename T>
void halfspace_box_projection(const HalfspaceBoxProjectionArgs<T>& args, Target target) {
  if (args.rows == 0) return;
  const auto run = [&](auto vector) {
    constexpr int kVector = decltype(vector)::value;
    by_norm(args.norm, [&](auto norm) {
      launch("halfspace_box_projection", halfspace_box_projection_global<decltype(norm)::value, kVector, T>, args.rows,
             kThreads, 1, target.stream, args);
    });
  };
  constexpr int kVector = sizeof(T) == 4 ? 4 : 1;  // doubles, two at a time, would spill
  if (rows_of_16_bytes(args.dim, args.x, args.w, args.delta))
    run(std::integral_constant<int, kVector>{});
  else
    run(std::integral_constant<int, 1>{});
}

template void halfspace_box_projection(const HalfspaceBoxProjectionArgs<float>&, Target);
template void halfspace_box_projection(const HalfspaceBoxProjectionArgs<double>&, Target);

}  // namespace robustperf::device
