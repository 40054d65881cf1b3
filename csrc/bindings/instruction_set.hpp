// Which instruction set the CPU's ops use, and how many threads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../core/target.hpp"

namespace robustperf {

enum class InstructionSet { baseline, avx2, avx512 };

const char* name_of(InstructionSet isa);

// Those that were compiled and that this processor supports, the narrowest first.
std::vector<InstructionSet> supported_instruction_sets();

// The widest supported one, or the one that the environment variable ROBUSTPERF_CPU names; read once, at first use.
// Throws std::invalid_argument for a name that is unknown or not supported here.
InstructionSet chosen_instruction_set();

// Threads for `elements` elements of work when `requested` are wanted. One for small work, inside a parallel region
// (nothing nests), and in a forked child, where the parent's libgomp threads do not exist.
int threads_for(int64_t elements, int64_t requested);

// Calls run(target) with the target of the chosen instruction set.
template <typename Run>
void on_cpu(int threads, Run&& run) {
#ifdef ROBUSTPERF_X86
  if (chosen_instruction_set() == InstructionSet::avx512) return run(avx512::Target{threads});
  if (chosen_instruction_set() == InstructionSet::avx2) return run(avx2::Target{threads});
#endif
  run(baseline::Target{threads});
}

}  // namespace robustperf
