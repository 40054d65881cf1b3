// Reductions over the lanes of a warp and the threads of a block. Every thread gets the result, and the order of the
// operations is always the same.
#pragma once

#include "launch.hpp"

namespace robustperf::device {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

struct Sum {
  template <typename V>
  __device__ V operator()(V a, V b) const {
    return a + b;
  }
};
struct Max {
  template <typename V>
  __device__ V operator()(V a, V b) const {
    return a < b ? b : a;
  }
};

// Over groups of kLanes neighbouring lanes. All lanes of the warp must call it.
template <int kLanes, typename V, typename Join>
__device__ V warp_reduce(V value, Join join) {
  for (int offset = kLanes / 2; offset > 0; offset /= 2) value = join(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

constexpr int kMaxWarps = 16;

// Over a block of whole warps; `partial` is shared memory for kMaxWarps values. All threads of the block must call it.
template <typename V, typename Join>
__device__ V block_reduce(V value, V* partial, Join join) {
  value = warp_reduce<kWarp>(value, join);
  __syncthreads();  // the results of the call before have been read
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = partial[0];
  for (unsigned w = 1; w < blockDim.x / kWarp; ++w) value = join(value, partial[w]);
  return value;
}

}  // namespace robustperf::device
