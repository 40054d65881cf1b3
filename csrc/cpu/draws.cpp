#include "../core/draws.hpp"

#include "parallel.hpp"
#include "random_fill.hpp"

namespace robustperf::ROBUSTPERF_TARGET {
namespace {

template <typename Transform>
void fill(const DrawsArgs& args, int threads, Transform&& transform) {
  parallel_rows(args.draws * args.samples, threads, [&](int64_t row) {
    random_fill(args.key, static_cast<uint64_t>(args.index[row % args.samples]),
                static_cast<uint32_t>(args.draw[row / args.samples]), 0, args.dim, args.out + row * args.dim,
                transform);
  });
}

}  // namespace

void draws(const DrawsArgs& args, Target target) {
  if (args.normal)
    fill(args, target.threads, [](uint32_t word) { return normal_of(word); });
  else
    fill(args, target.threads, [](uint32_t word) { return uniform_of(word); });
}

}  // namespace robustperf::ROBUSTPERF_TARGET
