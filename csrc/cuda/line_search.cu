// The line-search step: a warp takes one active point. Its lanes share the logits and the pixels; lane 0 advances the
// search with the arithmetic of core/bracket.hpp.
#include <stdexcept>
#include <string>

#include "../core/bracket.hpp"
#include "../core/gap.hpp"
#include "kernels.hpp"

namespace robustperf::cuda {
namespace {

using namespace robustperf::ROBUSTPERF_ISA;

constexpr int kWarp = 32;
constexpr int kWarpsPerBlock = 4;
constexpr unsigned kAllLanes = 0xffffffffu;

template <typename T>
__device__ void write_along(T* out, const T* x, const T* x_adv, double step, int64_t dim, int lane) {
  const T t = static_cast<T>(step);
  for (int64_t i = lane; i < dim; i += kWarp) out[i] = t == T(1) ? x_adv[i] : along(x[i], x_adv[i], t);
}

template <typename L>
__device__ double warp_gap(const L* logits, int64_t classes, int64_t label, double allowance, int lane) {
  GapParts parts;
  for (int64_t j = lane; j < classes; j += kWarp) parts.add(static_cast<double>(logits[j]), j == label);
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    GapParts that;
    that.label = __shfl_xor_sync(kAllLanes, parts.label, offset);
    that.other = __shfl_xor_sync(kAllLanes, parts.other, offset);
    that.scale = __shfl_xor_sync(kAllLanes, parts.scale, offset);
    parts.merge(that);
  }
  return parts.gap(allowance);
}

template <typename T, typename L>
__global__ void __launch_bounds__(kWarp* kWarpsPerBlock) step_kernel(const LineSearchArgs<T> args) {
  const int64_t m = static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (m >= args.active) return;
  const int64_t p = args.rows[m];
  Search& s = reinterpret_cast<Search*>(args.state)[p];
  if (args.logits != nullptr && s.line < 0.0) return;
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
  if (nearer) write_along(args.closest + p * args.dim, x, far_end(s.best_line), s.best_step, args.dim, lane);
  if (s.line >= 0.0) write_along(args.next + m * args.dim, x, far_end(s.line), s.step, args.dim, lane);
}

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

template <typename T, typename L>
void line_search_step(const LineSearchArgs<T>& args, cudaStream_t stream) {
  if (args.active == 0) return;
  const int64_t blocks = (args.active + kWarpsPerBlock - 1) / kWarpsPerBlock;
  step_kernel<T, L><<<static_cast<unsigned>(blocks), kWarp * kWarpsPerBlock, 0, stream>>>(args);
  check(cudaGetLastError(), "line_search_step");
}

template void line_search_step<float, float>(const LineSearchArgs<float>&, cudaStream_t);
template void line_search_step<float, double>(const LineSearchArgs<float>&, cudaStream_t);
template void line_search_step<double, float>(const LineSearchArgs<double>&, cudaStream_t);
template void line_search_step<double, double>(const LineSearchArgs<double>&, cudaStream_t);

}  // namespace robustperf::cuda
