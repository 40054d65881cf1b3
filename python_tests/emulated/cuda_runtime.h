// Replaces CUDA's header, so that the host's compiler builds csrc/cuda and it runs without a GPU.
//
// A block runs on a thread of the operating system; its threads are fibers that run one at a time until they wait
// (block.cpp). The blocks of a cluster run at the same time, all others one after the other. A barrier that not all
// threads reach, or a shuffle that not all lanes of its mask reach, ends the process with a message. A GPU is less
// strict: it counts threads that have ended as arrived.
//
// It tests the results, the barriers and, under UndefinedBehaviorSanitizer, the alignment of accesses. It cannot test:
// memory order and missing fences, races between blocks or threads (threads are switched at barriers and shuffles
// alone), shared memory that is read before it is written (it holds zeros or what an earlier block left), accesses out
// of bounds, timing, coalescing, the use of registers and shared memory, streams and graphs, the device's own libraries
// (::exp and its like are the host's), conversions of numbers that the target cannot hold.
//
// The environment, read at each call: EMULATED_CAPABILITY is the major compute capability, 9 without it;
// EMULATED_ORDER=reverse runs a block's last thread first; EMULATED_TRAP=NAME makes functions whose name contains
// NAME fail as __trap() does and then, as on a GPU, every later call of the process; EMULATED_LOG=FILE receives the
// addresses in the module of the functions that were launched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#define __host__
#define __device__
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __noinline__
#define __shared__ static thread_local  // no other block is on this thread of the operating system
#define __CUDA_ARCH__ 900
// PTX within the source: asm volatile("..." ::: "memory").
#define asm
#define volatile(...) emulated::ptx(#__VA_ARGS__)

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline thread_local uint3 threadIdx{}, blockIdx{}, blockDim{}, gridDim{};

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorIllegalInstruction = 715 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrComputeCapabilityMajor = 75 };
enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension = 4 };
using cudaStream_t = struct CUstream_st*;
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

// ---- what block.cpp does for the functions below ----

namespace emulated {

constexpr unsigned kWarp = 32;

enum Wait : int { kNothing, kBlock, kCluster, kWarpBarrier, kShuffle, kBallot };

// The calling thread waits until all of its block, or of its cluster, have come. `where`: in the code, for the message.
void wait(Wait what, const void* where);

// The calling thread waits until the lanes in the mask `lanes` have come. Each gets the value of the lane `source` that
// it names, or, of a ballot, a bit of each lane.
uint64_t meet(Wait what, unsigned lanes, uint64_t value, unsigned source, const void* where);

void ptx(const char* code);
[[noreturn]] void fail(const char* what);
cudaError_t launch(const cudaLaunchConfig_t& config, const void* function, void (*call)(const void*), const void* body);
cudaError_t sticky();  // the error that stays, if there has been one

template <typename V>
V shuffle(unsigned lanes, V value, unsigned source, const void* where) {
  static_assert(sizeof(V) <= sizeof(uint64_t));
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = meet(kShuffle, lanes, bits, source, where);
  memcpy(&value, &bits, sizeof value);
  return value;
}

inline cudaError_t answer(int* to, int value) {
  *to = value;
  return sticky();
}

}  // namespace emulated

// ---- the device's functions ----

[[gnu::noinline]] inline void __syncthreads() { emulated::wait(emulated::kBlock, __builtin_return_address(0)); }
[[gnu::noinline]] inline void __syncwarp(unsigned lanes = ~0u) {
  emulated::meet(emulated::kWarpBarrier, lanes, 0, 0, __builtin_return_address(0));
}
[[gnu::noinline]] inline unsigned __ballot_sync(unsigned lanes, int vote) {
  return static_cast<unsigned>(emulated::meet(emulated::kBallot, lanes, vote != 0, 0, __builtin_return_address(0)));
}
template <typename V>
[[gnu::noinline]] V __shfl_sync(unsigned lanes, V value, int lane) {
  return emulated::shuffle(lanes, value, static_cast<unsigned>(lane) % emulated::kWarp, __builtin_return_address(0));
}
template <typename V>
[[gnu::noinline]] V __shfl_xor_sync(unsigned lanes, V value, int by) {
  const unsigned source = (threadIdx.x ^ static_cast<unsigned>(by)) % emulated::kWarp;
  return emulated::shuffle(lanes, value, source, __builtin_return_address(0));
}
template <typename V>
[[gnu::noinline]] V __shfl_up_sync(unsigned lanes, V value, unsigned by) {
  const unsigned lane = threadIdx.x % emulated::kWarp;
  return emulated::shuffle(lanes, value, lane < by ? lane : lane - by, __builtin_return_address(0));
}
[[noreturn]] inline void __trap() { emulated::fail("__trap"); }
inline void __threadfence() {}
inline int __ffs(int bits) { return __builtin_ffs(bits); }
template <typename V>
V __ldcg(const V* from) {
  return *from;
}
template <typename V>
void __stwb(V* to, V value) {
  *to = value;
}
template <typename V>
V atomicAdd(V* to, V value) {
  return __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
}

// ---- the runtime ----

template <typename... Wanted, typename... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*function)(Wanted...), Given&&... given) {
  static_assert((sizeof(Wanted) + ... + 0) <= 32764, "more arguments than a launch takes");
  const auto body = [&] { function(given...); };
  return emulated::launch(
      *config, reinterpret_cast<const void*>(function),
      [](const void* data) { (*static_cast<decltype(body)*>(data))(); }, &body);
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t) {
  if (emulated::sticky() == cudaSuccess) memset(to, value, size);
  return emulated::sticky();
}
inline cudaError_t cudaGetLastError() { return emulated::sticky(); }
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorIllegalInstruction ? "an illegal instruction was encountered"
         : error == cudaErrorInvalidValue     ? "invalid argument"
                                              : "no error";
}
inline cudaError_t cudaGetDevice(int* device) { return emulated::answer(device, 0); }
inline cudaError_t cudaGetDeviceCount(int* count) { return emulated::answer(count, 1); }
inline cudaError_t cudaDriverGetVersion(int* version) { return emulated::answer(version, 13000); }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);

// Few, so that groups and blocks loop over several images.
template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, Kernel*, const cudaLaunchConfig_t*) {
  return emulated::answer(clusters, 2);
}
template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel*, int, size_t) {
  return emulated::answer(blocks, 2);
}
