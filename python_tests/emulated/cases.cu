// Functions with the faults that the emulation detects, and a correct one; the program's argument selects one.
#include <cstdio>
#include <string>

#include "../../csrc/cuda/cluster.hpp"
#include "../../csrc/cuda/reduce.hpp"
#include "../../csrc/cuda/vector_access.hpp"

namespace robustperf::device {

struct Numbers {
  alignas(16) int in[64];
  int out[256];
  unsigned long long sum;
};

// Sums by shuffles, votes, shared memory, atomics and across a cluster of two blocks of two warps.
__global__ void right(Numbers* n) {
  __shared__ int partial[kMaxWarps];
  const int lane = threadIdx.x % kWarp, thread = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  int before = n->in[threadIdx.x];
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const int that = __shfl_up_sync(kAllLanes, before, offset);
    if (lane >= offset) before += that;
  }
  const int last = __shfl_sync(kAllLanes, before, kWarp - 1);
  const int odd = __ffs(static_cast<int>(__ballot_sync(kAllLanes, n->in[threadIdx.x] % 2 == 1)));
  const int all = block_reduce(n->in[threadIdx.x], partial, Sum{});
  n->out[thread] = before + 1000 * odd + 10000 * last;
  atomicAdd(&n->sum, static_cast<unsigned long long>(all));
  sync_cluster();
  n->out[128 + thread] = n->out[127 - thread] % 1000;  // of the other block
}

__global__ void half_of_a_block(Numbers* n) {
  if (threadIdx.x < blockDim.x / 2) __syncthreads();
  n->out[threadIdx.x] = 1;
}

__global__ void a_block_of_a_cluster(Numbers*) {
  if (blockIdx.x == 0) sync_cluster();
}

__global__ void half_of_a_warp(Numbers* n) {
  if (threadIdx.x % 2 == 0)
    __syncwarp();
  else
    n->out[threadIdx.x] = __shfl_xor_sync(kAllLanes, 1, 1);
}

__global__ void all_lanes_but_one(Numbers* n) {
  if (threadIdx.x == 40) return;
  n->out[threadIdx.x] = __shfl_xor_sync(kAllLanes, n->in[threadIdx.x], 16);
}

__global__ void a_lane_outside_of_the_mask(Numbers* n) { n->out[0] = __shfl_sync(1u << threadIdx.x, 1, 0); }

__global__ void a_misaligned_access(Numbers* n) { write(n->out, read<4>(n->in + threadIdx.x)); }

__global__ void a_trap(Numbers*) { __trap(); }

}  // namespace robustperf::device

int main(int, char** arguments) {
  using namespace robustperf::device;
  Numbers n{};
  for (int i = 0; i < 64; ++i) n.in[i] = i;
  const std::string name = arguments[1];
  const auto run = [&](void (*function)(Numbers*), int64_t blocks = 1, int cluster = 1, int threads = 64) {
    launch("case", function, blocks, threads, cluster, nullptr, &n);
  };
  try {
    if (name == "right") run(right, 2, 2);
    if (name == "half_of_a_block") run(half_of_a_block);
    if (name == "a_block_of_a_cluster") run(a_block_of_a_cluster, 4, 2);
    if (name == "half_of_a_warp") run(half_of_a_warp);
    if (name == "all_lanes_but_one") run(all_lanes_but_one);
    if (name == "a_lane_outside_of_the_mask") run(a_lane_outside_of_the_mask);
    if (name == "a_misaligned_access") run(a_misaligned_access);
    if (name == "a_trap") run(a_trap);
    if (name == "three_blocks_in_clusters_of_two") run(right, 3, 2);
    if (name == "too_many_threads") run(right, 1, 1, 2048);
    if (name == "clusters") printf("%d\n", has_clusters());
  } catch (const std::exception& error) {
    printf("%s\n", error.what());
    try {
      run(half_of_a_block, 1, 1, 1);
    } catch (const std::exception& again) {
      printf("%s\n", again.what());
    }
    return 0;
  }
  for (int number : n.out) printf("%d ", number);
  printf("%llu\n", n.sum);
  return 0;
}
