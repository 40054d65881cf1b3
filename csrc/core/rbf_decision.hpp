// rbf_decision: the decisions of a radial-basis-function SVM, from kernel values exp(-gamma |x - s|^2) with
// |x - s|^2 = |x|^2 + |s|^2 - 2 <x, s>. A matrix product in Python computes the inner products. For few points the CPU
// computes <x, s> - |x|^2 / 2 - |s|^2 / 2 = -|x - s|^2 / 2 from the differences instead, which reads the support
// vectors once; these products go with squares of 0.
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

template <typename T>
struct RbfDistanceArgs {
  const T* x;        // [rows, dim]
  const T* support;  // [supports, dim]
  T* products;       // [rows, supports], -|x - s|^2 / 2; NaN where that is not finite
  int64_t rows, supports, dim;
};

// On the CPU.
ROBUSTPERF_DECLARE_OP(template <typename T> void rbf_distances(const RbfDistanceArgs<T>& args, Target target))

// Replaces the products by the kernel values.
ROBUSTPERF_DECLARE_OP(template <typename T> void rbf_values(const RbfDecisionArgs<T>& args, Target target))

// On the CPU: adds to sums, in float64, the kernel values times the coefficients.
ROBUSTPERF_DECLARE_OP(template <typename T> void rbf_sums(const RbfDecisionArgs<T>& args, Target target))

namespace ROBUSTPERF_TARGET {

// A term of |x - s|^2.
template <typename V>
ROBUSTPERF_HD inline V squared_difference(V x, V s) {
  const V difference = x - s;
  return difference * difference;
}

// V is float, double or the CPU's vector of either. Rounding may take the square below zero. NaN stays NaN.
template <typename V>
ROBUSTPERF_HD inline V rbf_value(V product, V square_of_x, V square_of_s, typename VectorTraits<V>::Scalar gamma) {
  const V square = VectorTraits<V>::at_least(V{}, (square_of_x + square_of_s) - (product + product));
  return exp_below_zero(square * -gamma);
}

}  // namespace ROBUSTPERF_TARGET
}  // namespace robustperf
