// nuisance: images under a program with the delta given.
#pragma once

#include "program.hpp"
#include "target.hpp"

namespace robustperf {

// Invalid input that the CPU's op finds: x not in [0, 1], delta not finite.
enum Fault : int { kPixel = 1, kDelta = 2 };

template <typename T>
struct NuisanceArgs {
  const Step* steps;  // [count], in the host's memory
  int64_t count;
  int64_t batch, draws, dim, height, width;
  int channels, channels_out, max_channels;
  const T* x;      // [batch, channels, height, width]
  const T* delta;  // [draws, batch, dim]
  T* out;          // [draws, batch, channels_out, height, width]
  int* faults;     // Fault bits of all images; on the CPU, which does not transform an image with a fault
  T* scratch;      // on a GPU, of nuisance_scratch bytes
};

ROBUSTPERF_DECLARE_OP(template <typename T> void nuisance(const NuisanceArgs<T>& args, Target target))

namespace device {

// Bytes of scratch that `nuisance` or, if `backward`, `nuisance_backward` needs.
template <typename T>
int64_t nuisance_scratch(const NuisanceArgs<T>& args, bool backward);

}  // namespace device
}  // namespace robustperf
