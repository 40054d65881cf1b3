#include "../core/philox.hpp"

#include "kernels.hpp"
#include "parallel.hpp"

namespace robustperf::ROBUSTPERF_ISA {
namespace {

// Blocks computed side by side, one a lane.
constexpr int64_t kBlocks = 16;

template <typename Transform>
void fill(const DrawArgs& args, int threads, Transform&& transform) {
  const uint32_t key_lo = static_cast<uint32_t>(args.key), key_hi = static_cast<uint32_t>(args.key >> 32);
  const int64_t blocks = (args.dim + 3) / 4;
  parallel_rows(args.draws * args.samples, threads, [&](int64_t row) {
    const uint32_t draw = static_cast<uint32_t>(args.draw[row / args.samples]);
    const uint64_t index = static_cast<uint64_t>(args.index[row % args.samples]);
    float* out = args.out + row * args.dim;
    for (int64_t first = 0; first < blocks; first += kBlocks) {
      float values[4][kBlocks];
#pragma omp simd
      for (int64_t l = 0; l < kBlocks; ++l) {
        const Words words = philox(draw_counter(static_cast<uint32_t>(first + l), draw, index), key_lo, key_hi);
        values[0][l] = transform(words.w[0]);
        values[1][l] = transform(words.w[1]);
        values[2][l] = transform(words.w[2]);
        values[3][l] = transform(words.w[3]);
      }
      const int64_t count = smaller(4 * kBlocks, args.dim - 4 * first);
      for (int64_t i = 0; i < count; ++i) out[4 * first + i] = values[i % 4][i / 4];
    }
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
