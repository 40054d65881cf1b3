// nuisance_backward: the backward pass of nuisance.
#pragma once

#include "nuisance.hpp"

namespace robustperf {

// `out` is not used.
template <typename T>
struct NuisanceBackwardArgs : NuisanceArgs<T> {
  const T* grad;  // of nuisance's output
  T* grad_x;      // like x; on a GPU that of each draw, [draws, batch, channels, height, width]
  T* grad_delta;  // like delta
};

ROBUSTPERF_DECLARE_OP(template <typename T> void nuisance_backward(const NuisanceBackwardArgs<T>& args, Target target))

}  // namespace robustperf
