// What an op is compiled for: an instruction set of the CPU, or a GPU.
//
// An op is a function `op(args, target)`. Its header in core/ declares it once, with ROBUSTPERF_DECLARE_OP;
// cpu/<op>.cpp defines it for each instruction set and cuda/<op>.cu for GPUs. The type of `target` chooses among them.
#pragma once

struct CUstream_st;  // CUDA's; cudaStream_t points to one

namespace robustperf {

namespace baseline {
struct Target {
  int threads;
};
}  // namespace baseline
namespace avx2 {
struct Target {
  int threads;
};
}  // namespace avx2
namespace avx512 {
struct Target {
  int threads;
};
}  // namespace avx512
namespace device {
struct Target {
  CUstream_st* stream;  // the op is queued there; the host does not wait for it
};
}  // namespace device

}  // namespace robustperf

// For use within namespace robustperf.
#define ROBUSTPERF_DECLARE_OP(...) \
  namespace baseline {             \
  __VA_ARGS__;                     \
  }                                \
  namespace avx2 {                 \
  __VA_ARGS__;                     \
  }                                \
  namespace avx512 {               \
  __VA_ARGS__;                     \
  }                                \
  namespace device {               \
  __VA_ARGS__;                     \
  }
