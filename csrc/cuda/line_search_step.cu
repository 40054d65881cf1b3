// The line-search step: one warp per active point. Its lanes share the logits and the pixels; lane 0 advances the
// search with the arithmetic of core/line_search_step.hpp.
#include "../core/line_search_step.hpp"

#include "launch.hpp"
#include "vector_access.hpp"
#include "warp_gap.hpp"

namespace robustperf::device {
namespace {

constexpr int kWarpsPerBlock = 4;

// out = the place `step` of the way from x to x_adv.
template <int kVector, typename T>
__device__ void write_along(T* out, const T* x, const T* x_adv, double step, int64_t dim, int lane) {
  const T t = static_cast<T>(step);
  for (int64_t i = lane * kVector; i < dim; i += kWarp * kVector) {
    Vector<T, kVector> place = read<kVector>(x_adv + i);
    if (t != T(1)) {
      const Vector<T, kVector> from = read<kVector>(x + i);
#pragma unroll
      for (int v = 0; v < kVector; ++v) place[v] = along(from[v], place[v], t);
    }
    write(out + i, place);
  }
}

template <int kVector, typename T, typename L>
__global__ void __launch_bounds__(kWarp* kWarpsPerBlock)
    line_search_step_global(const __grid_constant__ LineSearchStepArgs<T, L> args) {
  const int64_t m = static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (m >= args.active) return;
  const int64_t p = args.rows[m];
  if (p < 0 || p >= args.points) return;  // the host has not checked it, which would wait for the GPU
  Search& s = reinterpret_cast<Search*>(args.state)[p];
  if (args.logits != nullptr && !(s.line >= 0.0 && s.line < static_cast<double>(args.ensemble))) return;
  double gap = 0.0;
  if (args.logits != nullptr)
    gap = warp_gap(args.logits + m * args.classes, args.classes, args.label[p], args.rounding_tolerance, lane);
  const Method method{args.tol, args.bisection, args.probes, args.max_iterations};
  Line* lines = reinterpret_cast<Line*>(args.lines) + p * args.ensemble;
  int nearer = 0;
  __syncwarp();  // every lane has read the state before lane 0 changes it
  if (lane == 0) {
    if (args.logits == nullptr) start_search(s, lines, args.ensemble, method);
    nearer = args.logits == nullptr ? choose_next(s, lines, args.ensemble, method)
                                    : advance(s, gap, lines, args.ensemble, method);
  }
  __syncwarp();  // the warp sees lane 0's writes to the state
  nearer = __shfl_sync(kAllLanes, nearer, 0);
  const T* x = args.x + p * args.dim;
  const auto far_end = [&](double line) {
    return args.candidates + (static_cast<int64_t>(line) * args.points + p) * args.dim;
  };
  if (nearer) write_along<kVector>(args.closest + p * args.dim, x, far_end(s.best_line), s.best_step, args.dim, lane);
  if (s.line >= 0.0) write_along<kVector>(args.next + m * args.dim, x, far_end(s.line), s.step, args.dim, lane);
}

}  // namespace

template <typename T, typename L>
void line_search_step(const LineSearchStepArgs<T, L>& args, Target target) {
  if (args.active == 0) return;
  const auto function = rows_of_16_bytes(args.dim, args.x, args.candidates, args.next, args.closest)
                            ? line_search_step_global<16 / sizeof(T), T, L>
                            : line_search_step_global<1, T, L>;
  launch("line_search_step", function, blocks_for(args.active, kWarpsPerBlock), kWarp * kWarpsPerBlock, 1,
         target.stream, args);
}

template void line_search_step(const LineSearchStepArgs<float, float>&, Target);
template void line_search_step(const LineSearchStepArgs<float, double>&, Target);
template void line_search_step(const LineSearchStepArgs<double, float>&, Target);
template void line_search_step(const LineSearchStepArgs<double, double>&, Target);

}  // namespace robustperf::device
