#include "../core/logit_gap.hpp"

#include "parallel.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

template <typename L>
void logit_gap(const LogitGapArgs<L>& args, Target target) {
  parallel_rows(args.rows, target.threads, [&](int64_t row) {
    args.gap[row] = gap_of(args.logits + row * args.classes, args.classes, args.label[row], args.rounding_tolerance);
  });
}

template void logit_gap(const LogitGapArgs<float>&, Target);
template void logit_gap(const LogitGapArgs<double>&, Target);
template void logit_gap(const LogitGapArgs<BFloat16>&, Target);
template void logit_gap(const LogitGapArgs<Float16>&, Target);

}  // namespace robustperf::ROBUSTPERF_TARGET
