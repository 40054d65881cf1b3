// Rows divided among OpenMP threads; in the build with ThreadSanitizer among std::threads, whose start and end it sees.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef ROBUSTPERF_TSAN
#include <thread>
#include <vector>
#endif

#include "../core/platform.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

// A parallel region of one thread costs 0.4 us. Inside a caller's region one is needed: there the thread's number is
// not 0, and a new region's is.
inline bool needs_no_region(int threads) {
#ifdef _OPENMP
  return threads <= 1 && !::omp_in_parallel();
#else
  return threads <= 1;
#endif
}

#ifdef ROBUSTPERF_TSAN

inline thread_local int64_t own_number = 0;

template <typename Body>
inline void parallel_ranges(int64_t rows, int threads, Body&& body) {
  const auto run = [&](int64_t thread) {
    own_number = thread;
    const int64_t from = rows * thread / threads, to = rows * (thread + 1) / threads;
    if (from < to) body(from, to);
  };
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
  run(0);
  for (std::thread& other : others) other.join();
}

template <typename Body>
inline void parallel_rows(int64_t rows, int threads, Body&& body) {
  parallel_ranges(rows, threads, [&](int64_t from, int64_t to) {
    for (int64_t row = from; row < to; ++row) body(row);
  });
}

inline int64_t thread_number() { return own_number; }

#else

// Calls body(from, to) with a range of the rows on each thread.
template <typename Body>
inline void parallel_ranges(int64_t rows, int threads, Body&& body) {
  if (needs_no_region(threads)) {
    if (rows > 0) body(0, rows);
    return;
  }
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#ifdef _OPENMP
    const int64_t count = ::omp_get_num_threads(), thread = ::omp_get_thread_num();
#else
    const int64_t count = 1, thread = 0;
#endif
    const int64_t from = rows * thread / count, to = rows * (thread + 1) / count;
    if (from < to) body(from, to);
  }
}

// Calls body(row) for each row.
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

#endif

}  // namespace robustperf::ROBUSTPERF_TARGET
