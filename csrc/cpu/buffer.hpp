// Uninitialised scratch memory.
#pragma once

#include <new>

#include "../core/platform.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

// Not std::unique_ptr, whose functions all instruction sets would emit under one name.
template <typename T>
class Buffer {
 public:
  explicit Buffer(int64_t count) : data_(static_cast<T*>(::operator new(count * sizeof(T)))) {}
  ~Buffer() { ::operator delete(data_); }
  Buffer(const Buffer&) = delete;
  T* data() const { return data_; }

 private:
  T* data_;
};

}  // namespace robustperf::ROBUSTPERF_TARGET
