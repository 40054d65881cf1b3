// The line-search step: a warp takes one active point. Its lanes share the logits and the pixels; lane 0 advances the
// search with the arithmetic of core/bracket.hpp.
//
// logit_gap is its first half: a warp takes one row of logits.
#include "../core/bracket.hpp"
#include "../core/gap.hpp"
#include "../core/half.hpp"
#include "pack.hpp"
#include "team.hpp"

namespace robustperf::cuda {
namespace {

using namespace robustperf::ROBUSTPERF_ISA;

constexpr int kWarpsPerBlock = 4;

template <int kVector, typename T>
__device__ void write_along(T* out, const T* x, const T* x_adv, double step, int64_t dim, int lane) {
  const T t = static_cast<T>(step);
  for (int64_t i = lane * kVector; i < dim; i += kWarp * kVector) {
    Pack<T, kVector> place = read<kVector>(x_adv + i);
    if (t != T(1)) {
      const Pack<T, kVector> from = read<kVector>(x + i);
#pragma unroll
      for (int v = 0; v < kVector; ++v) place[v] = along(from[v], place[v], t);
    }
    write(out + i, place);
  }
}

// NaN for a label out of range: no gap, and no crossing.
template <typename L>
__device__ double warp_gap(const L* logits, int64_t classes, int64_t label, double allowance, int lane) {
  GapParts parts;
  for (int64_t j = lane; j < classes; j += kWarp) parts.add(static_cast<double>(number(logits[j])), j == label);
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    GapParts that;
    that.label = __shfl_xor_sync(kAllLanes, parts.label, offset);
    that.other = __shfl_xor_sync(kAllLanes, parts.other, offset);
    that.scale = __shfl_xor_sync(kAllLanes, parts.scale, offset);
    parts.merge(that);
  }
  return label >= 0 && label < classes ? parts.gap(allowance) : static_cast<double>(NAN);
}

template <typename L>
__global__ void __launch_bounds__(kWarp* kWarpsPerBlock) gap_kernel(const __grid_constant__ GapArgs args) {
  const int lane = threadIdx.x % kWarp;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp; row < args.rows;
       row += static_cast<int64_t>(gridDim.x) * kWarpsPerBlock) {
    const L* logits = static_cast<const L*>(args.logits) + row * args.classes;
    const double gap = warp_gap(logits, args.classes, args.label[row], args.allowance, lane);
    if (lane == 0) args.gap[row] = gap;
  }
}

template <int kVector, typename T, typename L>
__global__ void __launch_bounds__(kWarp* kWarpsPerBlock) step_kernel(const __grid_constant__ LineSearchArgs<T> args) {
  const int64_t m = static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (m >= args.active) return;
  const int64_t p = args.rows[m];
  if (p < 0 || p >= args.points) return;  // nobody looked at the numbers on the way
  Search& s = reinterpret_cast<Search*>(args.state)[p];
  if (args.logits != nullptr && !(s.line >= 0.0 && s.line < static_cast<double>(args.ensemble))) return;
  double gap = 0.0;
  if (args.logits != nullptr) {
    const L* logits = static_cast<const L*>(args.logits) + m * args.classes;
    gap = warp_gap(logits, args.classes, args.label[p], args.allowance, lane);
  }
  const Method method{args.tol, args.bisection, args.probes, args.patience};
  Line* lines = reinterpret_cast<Line*>(args.lines) + p * args.ensemble;
  int nearer = 0;
  __syncwarp();  // every lane has read the state before lane 0 moves it on
  if (lane == 0) {
    if (args.logits == nullptr) begin(s, lines, args.ensemble, method);
    nearer = args.logits == nullptr ? choose(s, lines, args.ensemble, method)
                                    : advance(s, gap, lines, args.ensemble, method);
  }
  __syncwarp();  // lane 0's writes to the state are visible to the warp
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
void line_search_step(const LineSearchArgs<T>& args, cudaStream_t stream) {
  if (args.active == 0) return;
  const auto kernel = rows_of_16_bytes(args.dim, args.x, args.candidates, args.next, args.closest)
                          ? step_kernel<16 / sizeof(T), T, L>
                          : step_kernel<1, T, L>;
  launch("line_search_step", kernel, blocks_for(args.active, kWarpsPerBlock), kWarp * kWarpsPerBlock, 1, stream, args);
}

template <typename L>
void logit_gap(const GapArgs& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  launch("logit_gap", gap_kernel<L>, blocks_for(args.rows, kWarpsPerBlock), kWarp * kWarpsPerBlock, 1, stream, args);
}

template void logit_gap<float>(const GapArgs&, cudaStream_t);
template void logit_gap<double>(const GapArgs&, cudaStream_t);
template void logit_gap<BFloat16>(const GapArgs&, cudaStream_t);
template void logit_gap<Float16>(const GapArgs&, cudaStream_t);
template void line_search_step<float, float>(const LineSearchArgs<float>&, cudaStream_t);
template void line_search_step<float, double>(const LineSearchArgs<float>&, cudaStream_t);
template void line_search_step<double, float>(const LineSearchArgs<double>&, cudaStream_t);
template void line_search_step<double, double>(const LineSearchArgs<double>&, cudaStream_t);

}  // namespace robustperf::cuda
