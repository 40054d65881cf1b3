#include "kernels.hpp"
#include "parallel.hpp"
#include "words.hpp"

namespace robustperf::ROBUSTPERF_ISA {
namespace {

template <typename Transform>
void fill(const DrawArgs& args, int threads, Transform&& transform) {
  parallel_rows(args.draws * args.samples, threads, [&](int64_t row) {
    fill_words(args.key, static_cast<uint64_t>(args.index[row % args.samples]),
               static_cast<uint32_t>(args.draw[row / args.samples]), 0, args.dim, args.out + row * args.dim, transform);
  });
}

}  // namespace

void Kernels::uniform(const DrawArgs& args, int threads) {
  fill(args, threads, [](uint32_t word) { return uniform_of(word); });
}

void Kernels::normal(const DrawArgs& args, int threads) {
  fill(args, threads, [](uint32_t word) { return normal_of(word); });
}

}  // namespace robustperf::ROBUSTPERF_ISA
