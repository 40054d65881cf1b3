// How kernels are launched: on the caller's stream, without waiting for anything.
#pragma once

#include <cuda_runtime.h>

#include "kernels.hpp"

namespace robustperf::cuda {

// A grid holds no more; kernels whose blocks may be more take them in turns.
constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;

ROBUSTPERF_HD constexpr int64_t blocks_for(int64_t items, int64_t per_block) {
  return (items + per_block - 1) / per_block;
}

// `cluster` neighbouring blocks run side by side and may wait for each other; 1: no block waits for another.
struct Launch {
  cudaLaunchConfig_t config{};
  cudaLaunchAttribute attribute{};

  Launch(int64_t blocks, int threads, int cluster, cudaStream_t stream) {
    config.gridDim = dim3(static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks / cluster * cluster));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.stream = stream;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    config.attrs = &attribute;
    config.numAttrs = cluster > 1 ? 1 : 0;
  }
  Launch(const Launch&) = delete;  // it points at itself
};

template <typename... Wanted, typename... Given>
void launch(const char* what, void (*kernel)(Wanted...), int64_t blocks, int threads, int cluster, cudaStream_t stream,
            const Given&... given) {
  const Launch how(blocks, threads, cluster, stream);
  check(cudaLaunchKernelEx(&how.config, kernel, static_cast<Wanted>(given)...), what);
}

// How many clusters of `cluster` blocks (1: how many blocks) of this kernel, without dynamic shared memory, the current
// device runs at the same time. Asked once for each device and kernel. Throws std::runtime_error where it is none.
int64_t resident(const char* what, const void* kernel, int threads, int cluster);

}  // namespace robustperf::cuda
