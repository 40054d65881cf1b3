// The cross-entropy of a row of logits, and which of several draws is the worst (R Algorithm 2, lines 4-11).
//
// With top = max_j z_j the loss is log(sum_j e^(z_j - top)) + top - z_y, and with label smoothing s
//   log(sum_j e^(z_j - top)) + (1 - s) (top - z_y) + sum_j (s / C) (top - z_j).
// No part is negative, so nothing cancels. A NaN, a logit of +inf, or a row of -inf alone makes the sum of powers NaN.
#pragma once

#include "elementary.hpp"

namespace robustperf::ROBUSTPERF_ISA {

// V is float, double or the CPU's vector of either. NaN is left to the sum.
template <typename V>
ROBUSTPERF_HD inline V top_of(V top, V z) {
  return z > top ? z : top;
}

template <typename V>
ROBUSTPERF_HD inline V power_term(V z, V top) {
  return exp_below_zero(z - top);
}

// `share` is s / C.
template <typename V>
ROBUSTPERF_HD inline V smoothing_term(V z, V top, typename Parts<V>::Number share) {
  return (top - z) * share;
}

// What the sums over a row come to.
template <typename T>
ROBUSTPERF_HD inline T cross_entropy(T powers, T top, T at_target, T smoothing, T label_smoothing) {
  const T log_sum = log_of(powers) + (powers - powers);  // log_of knows no NaN
  return log_sum + ((T(1) - label_smoothing) * (top - at_target) + smoothing);
}

// Whether a draw's loss takes the place of the best so far, which is NaN while there is none. NaN never does.
template <typename T>
ROBUSTPERF_HD constexpr bool worse(T loss, T best) {
  return loss > best || (best != best && loss == loss);
}

}  // namespace robustperf::ROBUSTPERF_ISA
