// What an operation is handed, on the CPU and on the GPU: contiguous tensors, sizes as in the comments.
#pragma once

#include <cstdint>

#include "program.hpp"

namespace robustperf {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

struct GapArgs {
  const void* logits;    // [rows, classes], float or double; the halves too on a GPU
  const int64_t* label;  // [rows]
  double* gap;           // [rows]
  int64_t rows, classes;
  double allowance;  // for rounding, relative to the largest |logit|
};

template <typename T>
struct LineSearchArgs {
  const void* logits;    // [active, classes], float or double; null at the start
  const int64_t* rows;   // [active], which point each row belongs to
  const int64_t* label;  // [points]
  const T* x;            // [points, dim]
  const T* candidates;   // [ensemble, points, dim]
  double* lines;         // [points, ensemble, kLineFields]
  double* state;         // [points, kSearchFields]
  T* next;               // [active, dim], where each active point looks next
  T* closest;            // [points, dim], the nearest verified point so far
  int64_t active, points, ensemble, dim, classes;
  double allowance;  // for rounding, relative to the largest |logit|
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
  int norm;  // Norm
  double lower, upper;
};

// T: of the losses, double where the logits are, else float.
template <typename T>
struct BestOfKArgs {
  const void* logits;     // [draws, rows, classes]
  const int64_t* target;  // [rows], in 0..classes-1 or ignore_index
  T* loss;                // [rows], the best so far; read unless fresh
  int64_t* index;         // [rows], its draw
  T* losses;              // [draws, rows], scratch
  double* totals;         // [draws], scratch; for whole_batch on the CPU alone
  unsigned* done;         // one count of blocks, scratch; for whole_batch on a GPU alone
  int64_t draws, rows, classes;
  int64_t first;     // the number of the first draw
  bool fresh;        // nothing came before
  bool whole_batch;  // one draw for all rows, the one of the largest summed loss
  double label_smoothing;
  int64_t ignore_index;
};

template <typename T>
struct RbfArgs {
  T* products;            // [rows, supports], <x, s>; overwritten by the kernel's values
  const T* squares_of_x;  // [rows], |x|^2
  const T* squares_of_s;  // [supports], |s|^2
  int64_t rows, supports;
  double gamma;
  // of a sum over supports
  const double* coefficients;  // [machines, supports]
  double* sums;                // [rows, machines], added to
  int64_t machines;
};

struct DrawArgs {
  uint64_t key;
  const int64_t* device_key;  // the key's bits; null: `key`. On a GPU alone
  const int64_t* index;       // [samples]
  const int64_t* draw;        // [draws]
  float* out;                 // [draws, samples, dim]
  int64_t draws, samples, dim;
};

// Where a thread keeps what, in elements of T from the start of its scratch.
struct NuisanceLayout {
  int64_t padded;       // the image for a warp: rows of quads with a border
  int64_t padded_grad;  // and its gradient
  int64_t image;        // one image, for blur
  int64_t tiles;        // tiles between steps
  int64_t delta;        // [dim], drawn on the way
  int64_t inputs;       // [segments] images, the inputs of the segments
  int64_t grads;        // one image, the gradient between segments
  int64_t total;
};

enum Fault : uint8_t { kPixel = 1, kDelta = 2 };  // x not in [0, 1], delta not finite

template <typename T>
struct NuisanceArgs {
  const Step* steps;  // [count]
  int64_t count;
  int64_t batch, draws, dim, height, width;
  int channels, channels_out, channels_most;
  const T* x;      // [batch, channels, height, width]
  const T* delta;  // [draws, batch, dim]; null: drawn from the words of index and draw under key
  T* out;          // [draws, batch, channels_out, height, width]
  uint64_t key;
  const int64_t* index;  // [batch]
  const int64_t* draw;   // [draws]
  const T* grad;         // of out; the way back alone
  T* grad_x;             // of x
  T* grad_delta;         // of delta
  T* scratch;            // [threads, layout.total]
  NuisanceLayout layout;
  uint8_t* faults;  // [draws, batch], Fault bits
};

struct NuisanceSampleArgs {
  const Step* steps;  // [count]
  int64_t count;
  uint64_t key;
  const int64_t* device_key;  // as in DrawArgs
  const int64_t* index;       // [samples]
  const int64_t* draw;        // [draws]
  float* delta;               // [draws, samples, dim]
  int64_t draws, samples, dim;
};

}  // namespace robustperf
