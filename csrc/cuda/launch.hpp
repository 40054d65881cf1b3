// Launches of __global__ functions: on the caller's stream, without host-device synchronisation.
#pragma once

#include <cuda_runtime.h>

#include "../core/platform.hpp"
#include "check.hpp"

namespace robustperf::device {

// The most blocks of a grid. Where there may be more, blocks loop over them.
constexpr int64_t kMaxBlocks = (int64_t{1} << 31) - 1;

ROBUSTPERF_HD constexpr int64_t blocks_for(int64_t items, int64_t per_block) {
  return (items + per_block - 1) / per_block;
}

// `cluster` neighbouring blocks run at the same time and may wait for each other; 1: no block waits for another.
struct Launch {
  cudaLaunchConfig_t config{};
  cudaLaunchAttribute attribute{};

  Launch(int64_t blocks, int threads, int cluster, cudaStream_t stream) {
    config.gridDim = dim3(static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks / cluster * cluster));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.stream = stream;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    config.attrs = &attribute;
    config.numAttrs = cluster > 1 ? 1 : 0;
  }
  Launch(const Launch&) = delete;  // it points to itself
};

template <typename... Wanted, typename... Given>
void launch(const char* what, void (*function)(Wanted...), int64_t blocks, int threads, int cluster,
            cudaStream_t stream, const Given&... given) {
  const Launch how(blocks, threads, cluster, stream);
  check(cudaLaunchKernelEx(&how.config, function, static_cast<Wanted>(given)...), what);
}

// How many clusters of `cluster` blocks (1: how many blocks) of this __global__ function, without dynamic shared
// memory, the current device runs at the same time. Cached by device and function. Throws std::runtime_error if it is
// none.
int64_t resident(const char* what, const void* function, int threads, int cluster);

}  // namespace robustperf::device
