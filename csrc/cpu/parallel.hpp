// Rows shared out over OpenMP threads.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

#include "../core/platform.hpp"

namespace robustperf::ROBUSTPERF_ISA {

template <typename Body>
inline void parallel_rows(int64_t rows, int threads, Body&& body) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) body(row);
  }
}

inline int64_t thread_number() {
#ifdef _OPENMP
  return ::omp_get_thread_num();
#else
  return 0;
#endif
}

}  // namespace robustperf::ROBUSTPERF_ISA
