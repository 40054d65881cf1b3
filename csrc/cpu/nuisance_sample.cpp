#include "../core/nuisance_sample.hpp"

#include "parallel.hpp"
#include "sample_delta.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

void nuisance_sample(const NuisanceSampleArgs& args, Target target) {
  parallel_rows(args.draws * args.samples, target.threads, [&](int64_t row) {
    sample_delta(args.steps, args.count, args.key, static_cast<uint64_t>(args.index[row % args.samples]),
                 static_cast<uint32_t>(args.draw[row / args.samples]), args.delta + row * args.dim);
  });
}

}  // namespace robustperf::ROBUSTPERF_TARGET
