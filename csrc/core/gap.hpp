// The logit gap: how far a row of logits is from another label.
#pragma once

#include "platform.hpp"

namespace robustperf::ROBUSTPERF_ISA {

// gap = z_label - max of the others + allowance * the largest |z|. Negative means: another label, also when the point
// is looked at again alone or in another batch. Parts merge in any order, so a warp can share a row.
struct GapParts {
  double label = -HUGE_VAL;
  double other = -HUGE_VAL;
  double scale = 0.0;  // the largest finite |z|

  // NaN sticks: once seen, no comparison replaces it.
  ROBUSTPERF_HD static double max_or_nan(double a, double b) { return (b > a || b != b) ? b : a; }

  ROBUSTPERF_HD void add(double z, bool is_label) {
    if (is_label)
      label = z;
    else
      other = max_or_nan(other, z);
    const double size = magnitude(z);
    if (finite(z) && size > scale) scale = size;
  }

  ROBUSTPERF_HD void merge(const GapParts& that) {
    label = max_or_nan(label, that.label);
    other = max_or_nan(other, that.other);
    scale = larger(scale, that.scale);
  }

  ROBUSTPERF_HD double gap(double allowance) const { return (label - other) + allowance * scale; }
};

template <typename L>
ROBUSTPERF_HD inline double gap_of(const L* logits, int64_t classes, int64_t label, double allowance) {
  GapParts parts;
  for (int64_t j = 0; j < classes; ++j) parts.add(static_cast<double>(logits[j]), j == label);
  return parts.gap(allowance);
}

}  // namespace robustperf::ROBUSTPERF_ISA
