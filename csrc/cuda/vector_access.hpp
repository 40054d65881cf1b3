// Vectorised access: 16 bytes of neighbouring numbers in one load or store.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

namespace robustperf::device {

// As many numbers as 16 bytes hold, or one.
template <typename T, int kCount>
struct Vector {
  static_assert(kCount == 1 || kCount * sizeof(T) == 16);
  T v[kCount];
  __device__ T& operator[](int i) { return v[i]; }
  __device__ const T& operator[](int i) const { return v[i]; }
};

// One store. The compiler would split an assignment into words where these come out of branches.
__device__ inline void write_16_bytes(void* to, uint4 words) {
#ifdef __CUDA_ARCH__
  __stwb(static_cast<uint4*>(to), words);
#else
  *static_cast<uint4*>(to) = words;
#endif
}

template <int kCount, typename T>
__device__ Vector<T, kCount> read(const T* from) {
  if constexpr (kCount == 1) {
    return {{*from}};
  } else {
    const uint4 words = *reinterpret_cast<const uint4*>(from);
    Vector<T, kCount> vector;
    memcpy(vector.v, &words, sizeof words);
    return vector;
  }
}

template <typename T, int kCount>
__device__ void write(T* to, const Vector<T, kCount>& vector) {
  if constexpr (kCount == 1) {
    *to = vector.v[0];
  } else {
    uint4 words;
    memcpy(&words, vector.v, sizeof words);
    write_16_bytes(to, words);
  }
}

// Whether rows of `size` numbers, the first of which these pointers point to, can be read 16 bytes at a time.
template <typename... Pointers>
bool rows_of_16_bytes(int64_t size, const Pointers*... pointers) {
  const bool divides = ((size * static_cast<int64_t>(sizeof(Pointers)) % 16 == 0) && ...);
  return divides && ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

}  // namespace robustperf::device
