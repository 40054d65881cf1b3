#include "dispatch.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif
#include <pthread.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace robustperf {

const char* name_of(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "baseline"; }

std::vector<Isa> supported_isas() {
  std::vector<Isa> isas{Isa::baseline};
#ifdef ROBUSTPERF_X86
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    isas.push_back(Isa::avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      isas.push_back(Isa::avx512);
  }
#endif
  return isas;
}

static Isa choose() {
  const auto isas = supported_isas();
  const char* wanted = std::getenv("ROBUSTPERF_CPU");
  if (wanted == nullptr || *wanted == '\0') return isas.back();
  std::string names;
  for (Isa isa : isas) {
    if (name_of(isa) == std::string(wanted)) return isa;
    names += (names.empty() ? "" : ", ") + std::string(name_of(isa));
  }
  throw std::invalid_argument("ROBUSTPERF_CPU: expected one of " + names + " on this machine, got '" + wanted + "'");
}

Isa chosen_isa() {
  static const Isa isa = choose();
  return isa;
}

static bool forked = false;
static const int fork_handler = pthread_atfork(nullptr, nullptr, [] { forked = true; });

int threads_for(int64_t elements, int requested) {
  constexpr int64_t kElementsPerThread = 1 << 15;  // some 20 us of work, beside a few us to wake a thread
  bool parallel = fork_handler == 0 && !forked;
#ifdef _OPENMP
  parallel = parallel && !omp_in_parallel();
#else
  parallel = false;
#endif
  return parallel ? static_cast<int>(std::clamp<int64_t>(elements / kElementsPerThread, 1, std::max(requested, 1))) : 1;
}

}  // namespace robustperf
