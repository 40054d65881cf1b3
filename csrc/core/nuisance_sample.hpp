// nuisance_sample: draws of a program's delta.
#pragma once

#include "distributions.hpp"
#include "target.hpp"

namespace robustperf {

struct NuisanceSampleArgs {
  const Step* steps;  // [count], in the host's memory
  int64_t count;
  uint64_t key;
  const int64_t* device_key;  // on a GPU the key's bits, or null: `key`
  const int64_t* index;       // [samples], the sample ids
  const int64_t* draw;        // [draws]
  float* delta;               // [draws, samples, dim]
  int64_t draws, samples, dim;
};

ROBUSTPERF_DECLARE_OP(void nuisance_sample(const NuisanceSampleArgs& args, Target target))

}  // namespace robustperf
