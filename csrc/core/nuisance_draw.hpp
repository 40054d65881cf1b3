// nuisance_draw: images under a program with delta drawn on the fly. On a GPU Python composes it of two other ops.
#pragma once

#include "nuisance.hpp"

namespace robustperf {

// `delta` is null: it is drawn under `key`.
template <typename T>
struct NuisanceDrawArgs : NuisanceArgs<T> {
  uint64_t key;
  const int64_t* index;  // [batch], the sample ids
  const int64_t* draw;   // [draws]
};

ROBUSTPERF_DECLARE_OP(template <typename T> void nuisance_draw(const NuisanceDrawArgs<T>& args, Target target))

}  // namespace robustperf
