// The kernel of a radial-basis-function SVM, exp(-gamma |x - s|^2) with |x - s|^2 = |x|^2 + |s|^2 - 2 <x, s>: the inner
// products are one product of matrices.
#pragma once

#include "elementary.hpp"

namespace robustperf::ROBUSTPERF_ISA {

// V is float, double or the CPU's vector of either. Rounding may take the square below zero. NaN stays NaN.
template <typename V>
ROBUSTPERF_HD inline V rbf_value(V product, V square_of_x, V square_of_s, typename Parts<V>::Number gamma) {
  const V square = Parts<V>::at_least(V{}, (square_of_x + square_of_s) - (product + product));
  return exp_below_zero(square * -gamma);
}

}  // namespace robustperf::ROBUSTPERF_ISA
