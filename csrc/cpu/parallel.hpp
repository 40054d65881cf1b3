// Rows shared out over OpenMP threads.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

#include "../core/platform.hpp"

namespace robustperf::ROBUSTPERF_ISA {

// A region of one thread costs 0.4 us. Within a caller's region it takes one all the same: its thread is number 0.
inline bool needs_no_region(int threads) {
#ifdef _OPENMP
  return threads <= 1 && !::omp_in_parallel();
#else
  return threads <= 1;
#endif
}

// body(from, to) for a stretch of the rows on each thread.
template <typename Body>
inline void parallel_ranges(int64_t rows, int threads, Body&& body) {
  if (needs_no_region(threads)) {
    if (rows > 0) body(0, rows);
    return;
  }
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#ifdef _OPENMP
    const int64_t team = ::omp_get_num_threads(), thread = ::omp_get_thread_num();
#else
    const int64_t team = 1, thread = 0;
#endif
    const int64_t from = rows * thread / team, to = rows * (thread + 1) / team;
    if (from < to) body(from, to);
  }
}

template <typename Body>
inline void parallel_rows(int64_t rows, int threads, Body&& body) {
  if (needs_no_region(threads)) {
    for (int64_t row = 0; row < rows; ++row) body(row);
    return;
  }
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
