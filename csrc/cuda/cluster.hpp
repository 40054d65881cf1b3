// Thread block clusters: neighbouring blocks that can wait for each other, since Hopper.
#pragma once

#include "launch.hpp"

namespace robustperf::device {

// A barrier for all threads of the cluster's blocks. What they wrote before it is visible after it.
__device__ inline void sync_cluster() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
#else
  __trap();  // no launch on an older GPU reaches this
#endif
}

// Whether the current device has them. Throws if CUDA cannot tell.
bool has_clusters();

}  // namespace robustperf::device
