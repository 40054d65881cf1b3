#include "instruction_set.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif
#include <pthread.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace robustperf {

const char* name_of(InstructionSet isa) {
  return isa == InstructionSet::avx512 ? "avx512" : isa == InstructionSet::avx2 ? "avx2" : "baseline";
}

std::vector<InstructionSet> supported_instruction_sets() {
  std::vector<InstructionSet> isas{InstructionSet::baseline};
#ifdef ROBUSTPERF_X86
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    isas.push_back(InstructionSet::avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      isas.push_back(InstructionSet::avx512);
  }
#endif
  return isas;
}

static InstructionSet choose() {
  const auto isas = supported_instruction_sets();
  const char* wanted = std::getenv("ROBUSTPERF_CPU");
  if (wanted == nullptr || *wanted == '\0') return isas.back();
  std::string names;
  for (InstructionSet isa : isas) {
    if (name_of(isa) == std::string(wanted)) return isa;
    names += (names.empty() ? "" : ", ") + std::string(name_of(isa));
  }
  throw std::invalid_argument("ROBUSTPERF_CPU: expected one of " + names + " on this machine, got '" + wanted + "'");
}

InstructionSet chosen_instruction_set() {
  static const InstructionSet isa = choose();
  return isa;
}

static bool forked = false;
static const int fork_handler = pthread_atfork(nullptr, nullptr, [] { forked = true; });

int threads_for(int64_t elements, int64_t requested) {
  constexpr int64_t kElementsPerThread = 1 << 15;  // some 20 us of work; waking a thread takes a few us
  constexpr int64_t kMaxThreads = 1 << 16;
  bool parallel = fork_handler == 0 && !forked;
#ifdef _OPENMP
  parallel = parallel && !omp_in_parallel();
#elif !defined(ROBUSTPERF_TSAN)
  parallel = false;
#endif
  const int64_t most = std::clamp<int64_t>(requested, 1, kMaxThreads);
  return parallel ? static_cast<int>(std::clamp<int64_t>(elements / kElementsPerThread, 1, most)) : 1;
}

}  // namespace robustperf
