// The key of draws.
#pragma once

#include <cstdint>

namespace robustperf::device {

// From the device's memory if it is there: a CUDA graph reads it at each replay.
template <typename Args>
__device__ uint64_t key_of(const Args& args) {
  return args.device_key == nullptr ? args.key : static_cast<uint64_t>(*args.device_key);
}

}  // namespace robustperf::device
