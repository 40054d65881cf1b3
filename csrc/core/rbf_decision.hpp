// rbf_decision: the decisions of a radial-basis-function SVM, from kernel values exp(-gamma |x - s|^2) with
// |x - s|^2 = |x|^2 + |s|^2 - 2 <x, s>. A matrix product in Python computes the inner products.
#pragma once

#include "elementary.hpp"
#include "target.hpp"

namespace robustperf {

template <typename T>
struct RbfDecisionArgs {
  T* products;            // [rows, supports], <x, s>
  const T* squares_of_x;  // [rows], |x|^2
  const T* squares_of_s;  // [supports], |s|^2
  int64_t rows, supports;
  double gamma;
  // for rbf_sums
  const double* coefficients;  // [classifiers, supports]
  double* sums;                // [rows, classifiers]
  int64_t classifiers;         // one-vs-one
};

// Replaces the products by the kernel values.
ROBUSTPERF_DECLARE_OP(template <typename T> void rbf_values(const RbfDecisionArgs<T>& args, Target target))

// On the CPU: adds to sums, in float64, the kernel values times the coefficients.
ROBUSTPERF_DECLARE_OP(template <typename T> void rbf_sums(const RbfDecisionArgs<T>& args, Target target))

namespace ROBUSTPERF_TARGET {

// V is float, double or the CPU's vector of either. Rounding may take the square below zero. NaN stays NaN.
template <typename V>
ROBUSTPERF_HD inline V rbf_value(V product, V square_of_x, V square_of_s, typename VectorTraits<V>::Scalar gamma) {
  const V square = VectorTraits<V>::at_least(V{}, (square_of_x + square_of_s) - (product + product));
  return exp_below_zero(square * -gamma);
}

}  // namespace ROBUSTPERF_TARGET
}  // namespace robustperf
