// The operations on the GPU: launched on the stream that is handed in, without synchronising.
#pragma once

#include <cuda_runtime_api.h>

#include "../core/arguments.hpp"

namespace robustperf::cuda {

// Throws std::runtime_error with CUDA's own words.
void check(cudaError_t status, const char* what);

// T: the dtype of the images, L: of the logits.
template <typename T, typename L>
void line_search_step(const LineSearchArgs<T>& args, cudaStream_t stream);

}  // namespace robustperf::cuda
