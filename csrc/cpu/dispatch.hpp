// Which instruction set the native operations take, and how many threads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels.hpp"

namespace robustperf {

enum class Isa { baseline, avx2, avx512 };

const char* name_of(Isa isa);

// Those that were compiled and that this processor runs, the narrowest first.
std::vector<Isa> supported_isas();

// The widest supported one, or the one that the environment variable ROBUSTPERF_CPU names; read once, at first use.
// Throws std::invalid_argument for a name that is unknown or not supported here.
Isa chosen_isa();

// Threads for `elements` elements of work when `requested` are wanted: one for small work, inside a parallel region
// (nothing nests), and in a forked child, where libgomp's team of the parent is gone.
int threads_for(int64_t elements, int requested);

// Calls body(Kernels{}) with the kernels of the chosen instruction set.
template <typename Body>
void with_kernels(Body&& body) {
#ifdef ROBUSTPERF_X86
  if (chosen_isa() == Isa::avx512) return body(avx512::Kernels{});
  if (chosen_isa() == Isa::avx2) return body(avx2::Kernels{});
#endif
  body(baseline::Kernels{});
}

}  // namespace robustperf
