// draws: uniforms or normals for each draw, sample and component.
#pragma once

#include "philox.hpp"
#include "target.hpp"

namespace robustperf {

struct DrawsArgs {
  uint64_t key;
  const int64_t* device_key;  // on a GPU the key's bits, or null: `key`
  const int64_t* index;       // [samples], the sample ids
  const int64_t* draw;        // [draws]
  float* out;                 // [draws, samples, dim]
  int64_t draws, samples, dim;
  bool normal;
};

ROBUSTPERF_DECLARE_OP(void draws(const DrawsArgs& args, Target target))

}  // namespace robustperf
