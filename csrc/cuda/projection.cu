// The halfspace-box projection: a block takes a row and passes over it a handful of times; after the first pass the row
// is in the cache.
#include "../core/projection.hpp"

#include <type_traits>

#include "pack.hpp"
#include "team.hpp"

namespace robustperf::cuda {
namespace {

using namespace robustperf::ROBUSTPERF_ISA;

constexpr int kThreads = 256;

// One row, to be solved by a block, whose threads take kVector coordinates at a time.
template <typename T, int kVector>
struct Row {
  const T *x, *w;
  int64_t dim;
  double scale, lower, upper;
  double* between;  // shared memory of join_threads

  __device__ double weight_of(T w) const { return magnitude(static_cast<double>(w)) * scale; }
  __device__ double room_of(T x, T w) const {
    return room(static_cast<double>(x), static_cast<double>(w), lower, upper);
  }
  __device__ double weight(int64_t i) const { return weight_of(w[i]); }
  __device__ double h(int64_t i) const { return room_of(x[i], w[i]); }

  // Calls body(x, w) for this thread's coordinates.
  template <typename Body>
  __device__ void each(Body&& body) const {
    for (int64_t i = threadIdx.x * kVector; i < dim; i += kThreads * kVector) {
      const Pack<T, kVector> xs = read<kVector>(x + i), ws = read<kVector>(w + i);
#pragma unroll
      for (int v = 0; v < kVector; ++v) body(xs[v], ws[v]);
    }
  }

  // Writes move(weight, h), signed, to delta.
  template <typename Move>
  __device__ void move(T* delta, Move&& move) const {
    for (int64_t i = threadIdx.x * kVector; i < dim; i += kThreads * kVector) {
      const Pack<T, kVector> xs = read<kVector>(x + i), ws = read<kVector>(w + i);
      Pack<T, kVector> moved;
#pragma unroll
      for (int v = 0; v < kVector; ++v) moved[v] = signed_move(move(weight_of(ws[v]), room_of(xs[v], ws[v])), ws[v]);
      write(delta + i, moved);
    }
  }

  // Two sums over the row: term(weight, h) gives what to add to each.
  template <typename Term>
  __device__ auto add_up(Term&& term) const {
    double first = 0.0, second = 0.0;
    each([&](T x, T w) {
      const auto [a, b] = term(weight_of(w), room_of(x, w));
      first += a;
      second += b;
    });
    first = join_threads(first, between, Add{});
    second = join_threads(second, between, Add{});
    return decltype(term(0.0, 0.0)){first, second};
  }
};

// p = 2 and inf: every coordinate moves by min(reach(t), h).
template <Norm P, typename T, int kVector>
__device__ void move_all(const Row<T, kVector>& row, double t, T* delta) {
  row.move(delta, [=](double weight, double h) { return smaller(reach<P>(t, weight), h); });
}

// p = 1: coordinates move to the end of their room from the heaviest on, the last one in part; of equal weights the
// lower index first.
template <typename T, int kVector>
__device__ void move_heaviest(const Row<T, kVector>& row, double c, double largest, T* delta) {
  const Selection s =
      weighted_select(c, from_bits(bits_of(largest) + 1), static_cast<double>(row.dim), 1.0,
                      [&](double t) { return row.add_up([=](double v, double h) { return mass_of(t, v, h, 1.0); }); });
  row.move(delta, [&](double weight, double h) { return weight >= s.high ? h : 0.0; });
  __syncthreads();  // all is written that the first warp now writes again
  if (threadIdx.x >= kWarp) return;
  const int lane = threadIdx.x;
  double left = c - s.mass;
  for (int64_t from = 0; from < row.dim && left > 0.0; from += kWarp) {
    const int64_t i = from + lane;
    const double v = i < row.dim ? row.weight(i) : 0.0, h = i < row.dim ? row.h(i) : 0.0;
    const bool inside = i < row.dim && v >= s.low && v < s.high;
    if (__ballot_sync(kAllLanes, inside) == 0) continue;
    double sum = inside ? v * h : 0.0;  // of this one and those before it
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const double before = __shfl_up_sync(kAllLanes, sum, offset);
      if (lane >= offset) sum += before;
    }
    const double before = __shfl_up_sync(kAllLanes, sum, 1), rest = (left - (lane == 0 ? 0.0 : before)) / v;
    // The first that need not go to the end is the last: a rounding rest would move the next one.
    const unsigned ends = __ballot_sync(kAllLanes, inside && rest <= h);
    const int last = ends == 0 ? kWarp : __ffs(ends) - 1;
    if (inside && lane <= last) delta[i] = signed_move(lane == last ? rest : h, row.w[i]);
    const double all = __shfl_sync(kAllLanes, sum, kWarp - 1);
    left = ends == 0 ? left - all : 0.0;
  }
}

template <Norm P, int kVector, typename T>
__global__ void __launch_bounds__(kThreads) projection_kernel(const __grid_constant__ ProjectionArgs<T> args) {
  __shared__ double between[kMostWarps];
  const auto join = [&](double value, auto how) { return join_threads(value, between, how); };
  for (int64_t r = blockIdx.x; r < args.rows; r += gridDim.x) {
    Row<T, kVector> row{args.x + r * args.dim, args.w + r * args.dim, args.dim, 1.0, args.lower, args.upper, between};
    double mass = 0.0, slope = 0.0, largest = 0.0, faults = 0.0;
    if constexpr (sizeof(T) == sizeof(double)) {
      row.each([&](T, T w) { largest = larger(largest, row.weight_of(w)); });
      row.scale = scale_for(join(largest, Larger{}));
      largest = 0.0;
    }
    row.each([&](T place, T normal) {
      const double x = static_cast<double>(place), w = static_cast<double>(normal), v = row.weight_of(normal),
                   h = row.room_of(place, normal);
      mass += v * h;
      slope += h > 0.0 ? reach<P>(v, v) : 0.0;
      largest = larger(largest, v);
      // an infinite or missing number minus itself is not zero
      faults += x >= args.lower && x <= args.upper && w - w == 0.0 ? 0.0 : 1.0;
    });
    mass = join(mass, Add{});
    slope = join(slope, Add{});
    largest = join(largest, Larger{});
    faults = join(faults, Add{});
    const double c = args.c[r] * row.scale;
    T* delta = args.delta + r * args.dim;
    const bool sound = faults == 0.0 && c == c, feasible = sound && (c <= 0.0 || mass >= c);
    if (threadIdx.x == 0) args.feasible[r] = feasible;
    if (!sound || c <= 0.0) {
      for (int64_t i = threadIdx.x; i < args.dim; i += kThreads) delta[i] = sound ? T(0) : static_cast<T>(NAN);
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
void halfspace_box_projection(const ProjectionArgs<T>& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  const auto run = [&](auto vector) {
    constexpr int kVector = decltype(vector)::value;
    const auto kernel = args.norm == static_cast<int>(Norm::two)   ? projection_kernel<Norm::two, kVector, T>
                        : args.norm == static_cast<int>(Norm::inf) ? projection_kernel<Norm::inf, kVector, T>
                                                                   : projection_kernel<Norm::one, kVector, T>;
    launch("halfspace_box_projection", kernel, args.rows, kThreads, 1, stream, args);
  };
  constexpr int kVector = sizeof(T) == 4 ? 4 : 1;  // doubles, two at a time, would spill
  if (rows_of_16_bytes(args.dim, args.x, args.w, args.delta))
    run(std::integral_constant<int, kVector>{});
  else
    run(std::integral_constant<int, 1>{});
}

template void halfspace_box_projection<float>(const ProjectionArgs<float>&, cudaStream_t);
template void halfspace_box_projection<double>(const ProjectionArgs<double>&, cudaStream_t);

}  // namespace robustperf::cuda
