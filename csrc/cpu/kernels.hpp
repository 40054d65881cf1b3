// The native operations: one declaration, compiled once per instruction set, chosen at run time.
#pragma once

#include "../core/arguments.hpp"

namespace robustperf {

// Doubles that one thread needs to project a row: two rows, padded to the lanes of lanes.hpp.
constexpr int64_t projection_scratch(int64_t dim) { return 2 * ((dim + 15) / 16 * 16); }

// Pixels that the steps of a nuisance program pass over together: three channels of them stay in the first cache.
constexpr int64_t kTile = 512;

// T: the dtype of the images, L: of the logits.
#define ROBUSTPERF_DECLARE_KERNELS(isa)                                               \
  namespace isa {                                                                     \
  struct Kernels {                                                                    \
    template <typename L>                                                             \
    static void logit_gap(const GapArgs& args);                                       \
    template <typename T, typename L>                                                 \
    static void line_search_step(const LineSearchArgs<T>& args, int threads);         \
    template <typename T>                                                             \
    static void halfspace_box_projection(const ProjectionArgs<T>& args, int threads); \
    template <typename T, typename L>                                                 \
    static void best_of_k(const BestOfKArgs<T>& args, int threads);                   \
    template <typename T>                                                             \
    static void rbf_kernel(const RbfArgs<T>& args, int threads);                      \
    template <typename T>                                                             \
    static void rbf_sums(const RbfArgs<T>& args, int threads);                        \
    template <typename T>                                                             \
    static void nuisance(const NuisanceArgs<T>& args, int threads);                   \
    template <typename T>                                                             \
    static void nuisance_backward(const NuisanceArgs<T>& args, int threads);          \
    static void nuisance_sample(const NuisanceSampleArgs& args, int threads);         \
    static void uniform(const DrawArgs& args, int threads);                           \
    static void normal(const DrawArgs& args, int threads);                            \
  };                                                                                  \
  }

ROBUSTPERF_DECLARE_KERNELS(baseline)
#ifdef ROBUSTPERF_X86
ROBUSTPERF_DECLARE_KERNELS(avx2)
ROBUSTPERF_DECLARE_KERNELS(avx512)
#endif

}  // namespace robustperf
