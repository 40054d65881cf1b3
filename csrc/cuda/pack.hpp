// Neighbouring numbers, which one access takes.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

namespace robustperf::cuda {

// As many as 16 bytes hold, or one.
template <typename T, int kCount>
struct Pack {
  static_assert(kCount == 1 || kCount * sizeof(T) == 16);
  T v[kCount];
  __device__ T& operator[](int i) { return v[i]; }
  __device__ const T& operator[](int i) const { return v[i]; }
};

// One store to the device's memory. An assignment the compiler takes apart into words where these come out of branches.
__device__ inline void write_16_bytes(void* to, uint4 words) {
#ifdef __CUDA_ARCH__
  __stwb(static_cast<uint4*>(to), words);
#else
  *static_cast<uint4*>(to) = words;
#endif
}

template <int kCount, typename T>
__device__ Pack<T, kCount> read(const T* from) {
  if constexpr (kCount == 1) {
    return {{*from}};
  } else {
    const uint4 words = *reinterpret_cast<const uint4*>(from);
    Pack<T, kCount> pack;
    memcpy(pack.v, &words, sizeof words);
    return pack;
  }
}

template <typename T, int kCount>
__device__ void write(T* to, const Pack<T, kCount>& pack) {
  if constexpr (kCount == 1) {
    *to = pack.v[0];
  } else {
    uint4 words;
    memcpy(&words, pack.v, sizeof words);
    write_16_bytes(to, words);
  }
}

// Whether rows of `size` numbers can be read 16 bytes at a time, from where these pointers point on.
template <typename... Pointers>
bool rows_of_16_bytes(int64_t size, const Pointers*... pointers) {
  const bool whole = ((size * static_cast<int64_t>(sizeof(Pointers)) % 16 == 0) && ...);
  return whole && ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

}  // namespace robustperf::cuda
