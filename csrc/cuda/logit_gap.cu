// The logit gap: one warp per row.
#include "../core/logit_gap.hpp"

#include "launch.hpp"
#include "warp_gap.hpp"

namespace robustperf::device {
namespace {

constexpr int kWarpsPerBlock = 4;

template <typename L>
__global__ void __launch_bounds__(kWarp* kWarpsPerBlock)
    logit_gap_global(const __grid_constant__ LogitGapArgs<L> args) {
  const int lane = threadIdx.x % kWarp;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp; row < args.rows;
       row += static_cast<int64_t>(gridDim.x) * kWarpsPerBlock) {
    const L* logits = args.logits + row * args.classes;
    const double gap = warp_gap(logits, args.classes, args.label[row], args.rounding_tolerance, lane);
    if (lane == 0) args.gap[row] = gap;
  }
}

}  // namespace

template <typename L>
void logit_gap(const LogitGapArgs<L>& args, Target target) {
  if (args.rows == 0) return;
  launch("logit_gap", logit_gap_global<L>, blocks_for(args.rows, kWarpsPerBlock), kWarp * kWarpsPerBlock, 1,
         target.stream, args);
}

template void logit_gap(const LogitGapArgs<float>&, Target);
template void logit_gap(const LogitGapArgs<double>&, Target);
template void logit_gap(const LogitGapArgs<BFloat16>&, Target);
template void logit_gap(const LogitGapArgs<Float16>&, Target);

}  // namespace robustperf::device
