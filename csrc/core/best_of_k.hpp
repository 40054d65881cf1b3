// best_of_k: the cross-entropy of each draw's logits, and the draw with the largest loss (R Algorithm 2, lines 4-11).
//
// With top = max_j z_j the loss is log(sum_j e^(z_j - top)) + top - z_y, and with label smoothing s
//   log(sum_j e^(z_j - top)) + (1 - s) (top - z_y) + sum_j (s / C) (top - z_j).
// No term is negative, so nothing cancels. A NaN, a logit of +inf, or a row of only -inf makes the sum of powers NaN.
#pragma once

#include "half.hpp"
#include "target.hpp"

namespace robustperf {

template <typename L>
struct BestOfKArgs {
  using T = ComputeType<L>;
  const L* logits;        // [draws, rows, classes]
  const int64_t* target;  // [rows], in 0..classes-1 or ignore_index
  T* loss;                // [rows], the largest so far; read unless first_chunk
  int64_t* index;         // [rows], its draw
  int64_t draws, rows, classes;
  int64_t first;     // the number of the first draw
  bool first_chunk;  // these are the first draws
  bool whole_batch;  // one draw for all rows: the one with the largest summed loss
  double label_smoothing;
  int64_t ignore_index;
  // scratch of a GPU, for whole_batch
  T* losses;              // [draws, rows]
  unsigned* blocks_done;  // one counter
};

ROBUSTPERF_DECLARE_OP(template <typename L> void best_of_k(const BestOfKArgs<L>& args, Target target))

namespace ROBUSTPERF_TARGET {

// V is float, double or the CPU's vector of either. A NaN shows in the sum of powers, not here.
template <typename V>
ROBUSTPERF_HD inline V top_of(V top, V z) {
  return z > top ? z : top;
}

template <typename V>
ROBUSTPERF_HD inline V power_term(V z, V top) {
  return exp_below_zero(z - top);
}

// `smoothing` is s / C.
template <typename V>
ROBUSTPERF_HD inline V smoothing_term(V z, V top, typename VectorTraits<V>::Scalar smoothing) {
  return (top - z) * smoothing;
}

// The loss from a row's sums: of power_term and of smoothing_term.
template <typename T>
ROBUSTPERF_HD inline T cross_entropy(T powers, T top, T at_target, T smoothing, T label_smoothing) {
  const T log_sum = log_of(powers) + (powers - powers);  // log_of does not handle NaN
  return log_sum + ((T(1) - label_smoothing) * (top - at_target) + smoothing);
}

// Whether a draw's loss replaces the largest so far, which is NaN while there is none. A NaN loss never does.
template <typename T>
ROBUSTPERF_HD constexpr bool worse(T loss, T worst) {
  return loss > worst || (worst != worst && loss == loss);
}

}  // namespace ROBUSTPERF_TARGET
}  // namespace robustperf
