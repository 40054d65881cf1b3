// CUDA's errors as exceptions.
#pragma once

#include <cuda_runtime_api.h>

namespace robustperf::device {

// Throws std::runtime_error with CUDA's own message.
void check(cudaError_t status, const char* what);

}  // namespace robustperf::device
