// The logit gap: how far a row of logits is from another label.
#pragma once

#include "platform.hpp"

namespace robustperf::ROBUSTPERF_ISA {

// How many units in the last place of the largest logit a gap must lie beyond zero before it counts as a crossing.
// Convolutions round differently by batch size: over batches of 1, 7 and 256, the logits of trained networks moved by
// up to 5 units, and a gap is the difference of two of them.
constexpr double kRoundingUnits = 32.0;

// gap = z_label - max of the others + the rounding allowance. Negative means: another label, also when the point is
// looked at again alone or in another batch. Parts merge in any order, so a warp can share a row.
struct GapParts {
  double label = -HUGE_VAL;
  double other = -HUGE_VAL;
  double scale = 0.0;  // the largest finite |z|

  // NaN sticks: once seen, no comparison replaces it.
  ROBUSTPERF_HD static double max_or_nan(double a, double b) { return (b > a || b != b) ? b : a; }

  ROBUSTPERF_HD void add(double z, bool is_label) {
    if (is_label) label = z;
    else other = max_or_nan(other, z);
    const double size = magnitude(z);
    if (finite(z) && size > scale) scale = size;
  }

  ROBUSTPERF_HD void merge(const GapParts& that) {
    label = max_or_nan(label, that.label);
    other = max_or_nan(other, that.other);
    scale = larger(scale, that.scale);
  }

  ROBUSTPERF_HD double gap(double epsilon) const { return (label - other) + kRoundingUnits * epsilon * scale; }
};

template <typename L>
ROBUSTPERF_HD inline double gap_of(const L* logits, int64_t classes, int64_t label, double epsilon) {
  GapParts parts;
  for (int64_t j = 0; j < classes; ++j) parts.add(static_cast<double>(logits[j]), j == label);
  return parts.gap(epsilon);
}

}  // namespace robustperf::ROBUSTPERF_ISA
