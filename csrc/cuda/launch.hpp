// How kernels are launched: on the caller's stream, without waiting for anything.
#pragma once

#include <cuda_runtime.h>

#include "kernels.hpp"

namespace robustperf::cuda {

// A grid holds no more; kernels whose blocks may be more take them in turns.
constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;

ROBUSTPERF_HD constexpr int64_t blocks_for(int64_t items, int64_t per_block) { return (items + per_block - 1) / per_block; }

// `cluster` neighbouring blocks run side by side and may wait for each other; 1: no block waits for another.
template <typename... Wanted, typename... Given>
void launch(const char* what, void (*kernel)(Wanted...), int64_t blocks, int threads, int cluster, cudaStream_t stream,
            const Given&... given) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks / cluster * cluster));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  config.attrs = &attribute;
  config.numAttrs = cluster > 1 ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Wanted>(given)...), what);
}

}  // namespace robustperf::cuda
