// Neighbouring blocks that wait for each other, which processors have been able to do since Hopper.
#pragma once

#include "launch.hpp"

namespace robustperf::cuda {

// All threads of the cluster's blocks must come here; what they have written is seen behind it.
__device__ inline void sync_cluster() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
#else
  __trap();  // nothing that is launched on other processors comes here
#endif
}

// Throws for a device that cannot be asked.
bool has_clusters();

}  // namespace robustperf::cuda
