// The operations on the GPU: launched on the stream that is handed in, without synchronising.
#pragma once

#include <cuda_runtime_api.h>

#include "../core/arguments.hpp"

namespace robustperf::cuda {

// Throws std::runtime_error with CUDA's own words.
void check(cudaError_t status, const char* what);

// T: the dtype of the images (of the losses, for best_of_k), L: of the logits.
template <typename T, typename L>
void best_of_k(const BestOfKArgs<T>& args, cudaStream_t stream);

template <typename T>
void halfspace_box_projection(const ProjectionArgs<T>& args, cudaStream_t stream);

template <typename L>
void logit_gap(const GapArgs& args, cudaStream_t stream);

template <typename T, typename L>
void line_search_step(const LineSearchArgs<T>& args, cudaStream_t stream);

// The products of an RBF machine's operands, turned into its kernel's values.
template <typename T>
void rbf_kernel(const RbfArgs<T>& args, cudaStream_t stream);

void draws(const DrawArgs& args, bool normal, cudaStream_t stream);

void nuisance_sample(const NuisanceSampleArgs& args, cudaStream_t stream);

// The arguments' steps are in the host's memory. Bytes of scratch that `nuisance` or, `back`, `nuisance_backward`
// wants.
template <typename T>
int64_t nuisance_scratch(const NuisanceArgs<T>& args, bool back);

// With a delta.
template <typename T>
void nuisance(const NuisanceArgs<T>& args, cudaStream_t stream);

// The gradients in x are those of each draw, [draws, batch, channels, height, width].
template <typename T>
void nuisance_backward(const NuisanceArgs<T>& args, cudaStream_t stream);

}  // namespace robustperf::cuda
