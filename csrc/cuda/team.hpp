// What the lanes of a warp and the threads of a block find out together. Everybody gets the result, and numbers are
// joined in the same order each time.
#pragma once

#include "launch.hpp"

namespace robustperf::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

struct Add {
  template <typename V>
  __device__ V operator()(V a, V b) const {
    return a + b;
  }
};
struct Larger {
  template <typename V>
  __device__ V operator()(V a, V b) const {
    return a < b ? b : a;
  }
};

// Over groups of kLanes neighbouring lanes; all lanes of the warp must come here.
template <int kLanes, typename V, typename Join>
__device__ V join_lanes(V value, Join join) {
  for (int offset = kLanes / 2; offset > 0; offset /= 2) value = join(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

// The key of draws, from the device's memory where it is there: a graph of launches reads it at each replay.
template <typename Args>
__device__ uint64_t key_of(const Args& args) {
  return args.device_key == nullptr ? args.key : static_cast<uint64_t>(*args.device_key);
}

constexpr int kMostWarps = 16;

// Over the block, whole warps; `between` is shared memory for kMostWarps values. All threads must come here.
template <typename V, typename Join>
__device__ V join_threads(V value, V* between, Join join) {
  value = join_lanes<kWarp>(value, join);
  __syncthreads();  // what was joined before has been read
  if (threadIdx.x % kWarp == 0) between[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = between[0];
  for (unsigned w = 1; w < blockDim.x / kWarp; ++w) value = join(value, between[w]);
  return value;
}

}  // namespace robustperf::cuda
