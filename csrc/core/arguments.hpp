// What an operation is handed, on the CPU and on the GPU: contiguous tensors, sizes as in the comments.
#pragma once

#include <cstdint>

namespace robustperf {

struct GapArgs {
  const void* logits;    // [rows, classes], float or double
  const int64_t* label;  // [rows]
  double* gap;           // [rows]
  int64_t rows, classes;
  double allowance;      // for rounding, relative to the largest |logit|
};

template <typename T>
struct LineSearchArgs {
  const void* logits;     // [active, classes], float or double; null at the start
  const int64_t* rows;    // [active], which point each row belongs to
  const int64_t* label;   // [points]
  const T* x;             // [points, dim]
  const T* candidates;    // [ensemble, points, dim]
  double* lines;          // [points, ensemble, kLineFields]
  double* state;          // [points, kSearchFields]
  T* next;                // [active, dim], where each active point looks next
  T* closest;             // [points, dim], the nearest verified point so far
  int64_t active, points, ensemble, dim, classes;
  double allowance;       // for rounding, relative to the largest |logit|
  double tol;
  bool bisection;
  int64_t probes;
  double patience;
};

template <typename T>
struct ProjectionArgs {
  const T* x;       // [rows, dim]
  const T* w;       // [rows, dim]
  const double* c;  // [rows]
  T* delta;         // [rows, dim]
  bool* feasible;   // [rows]
  double* scratch;  // [threads, projection_scratch(dim)]
  int64_t rows, dim;
  int norm;         // Norm
  double lower, upper;
};

struct DrawArgs {
  uint64_t key;
  const int64_t* index;  // [samples]
  const int64_t* draw;   // [draws]
  float* out;            // [draws, samples, dim]
  int64_t draws, samples, dim;
};

}  // namespace robustperf
