// The logit gap of a row, by one warp.
#pragma once

#include "../core/logit_gap.hpp"
#include "reduce.hpp"

namespace robustperf::device {

// NaN for a label out of range, so that there is no crossing.
template <typename L>
__device__ double warp_gap(const L* logits, int64_t classes, int64_t label, double rounding_tolerance, int lane) {
  PartialGap gap;
  for (int64_t j = lane; j < classes; j += kWarp) gap.add(static_cast<double>(widen(logits[j])), j == label);
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    PartialGap that;
    that.label = __shfl_xor_sync(kAllLanes, gap.label, offset);
    that.other = __shfl_xor_sync(kAllLanes, gap.other, offset);
    that.scale = __shfl_xor_sync(kAllLanes, gap.scale, offset);
    gap.merge(that);
  }
  return label >= 0 && label < classes ? gap.gap(rounding_tolerance) : static_cast<double>(NAN);
}

}  // namespace robustperf::device
