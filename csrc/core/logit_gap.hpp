// logit_gap: how far a row of logits is from another label.
#pragma once

#include "half.hpp"
#include "target.hpp"

namespace robustperf {

// L: double, float, or on a GPU a half.
template <typename L>
struct LogitGapArgs {
  const L* logits;       // [rows, classes]
  const int64_t* label;  // [rows]
  double* gap;           // [rows]
  int64_t rows, classes;
  double rounding_tolerance;  // relative to the largest |logit|
};

ROBUSTPERF_DECLARE_OP(template <typename L> void logit_gap(const LogitGapArgs<L>& args, Target target))

namespace ROBUSTPERF_TARGET {

// gap = z_label - max of the others + rounding_tolerance * the largest |z|. A negative gap means another label, also
// when the point is evaluated again alone or in another batch. Partial gaps merge in any order, so a warp can split a
// row.
struct PartialGap {
  double label = -HUGE_VAL;
  double other = -HUGE_VAL;
  double scale = 0.0;  // the largest finite |z|

  // Once NaN it stays NaN: no comparison replaces it.
  ROBUSTPERF_HD static double max_or_nan(double a, double b) { return (b > a || b != b) ? b : a; }

  ROBUSTPERF_HD void add(double z, bool is_label) {
    if (is_label)
      label = z;
    else
      other = max_or_nan(other, z);
    const double size = abs_of(z);
    if (finite(z) && size > scale) scale = size;
  }

  ROBUSTPERF_HD void merge(const PartialGap& that) {
    label = max_or_nan(label, that.label);
    other = max_or_nan(other, that.other);
    scale = max_of(scale, that.scale);
  }

  ROBUSTPERF_HD double gap(double rounding_tolerance) const { return (label - other) + rounding_tolerance * scale; }
};

template <typename L>
ROBUSTPERF_HD inline double gap_of(const L* logits, int64_t classes, int64_t label, double rounding_tolerance) {
  PartialGap gap;
  for (int64_t j = 0; j < classes; ++j) gap.add(static_cast<double>(widen(logits[j])), j == label);
  return gap.gap(rounding_tolerance);
}

}  // namespace ROBUSTPERF_TARGET
}  // namespace robustperf
