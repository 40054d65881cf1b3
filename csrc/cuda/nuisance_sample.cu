// The draws of a program's delta: a warp or a block per row.
#include "../core/nuisance_sample.hpp"

#include "plan.hpp"
#include "random_key.hpp"
#include "reduce.hpp"

namespace robustperf::device {
namespace {

constexpr int kThreads = 128;
constexpr int kMaxRows = kThreads / kWarp;

// One of four words, chosen at run time. Indexing would move the array from registers to memory.
__device__ inline uint32_t word_of(const Words& words, int64_t l) {
  const uint32_t low = l == 0 ? words.w[0] : words.w[1], high = l == 2 ? words.w[2] : words.w[3];
  return l < 2 ? low : high;
}

// `threads` threads per row: a warp's or the block's.
__global__ void __launch_bounds__(kThreads) nuisance_sample_global(const __grid_constant__ NuisanceSampleArgs args,
                                                                   const __grid_constant__ Plan plan, int threads) {
  __shared__ double squares[kMaxRows][8];
  const uint64_t key = key_of(args);
  const uint32_t key_lo = static_cast<uint32_t>(key), key_hi = static_cast<uint32_t>(key >> 32);
  const int place = threadIdx.x / threads, thread = threadIdx.x % threads, rows_per_block = kThreads / threads;
  const int64_t rows = args.draws * args.samples;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * rows_per_block; first < rows;
       first += static_cast<int64_t>(gridDim.x) * rows_per_block) {
    const int64_t row = min_of(first + place, rows - 1);  // threads without a row take the last one and do not write
    const uint64_t index = static_cast<uint64_t>(args.index[row % args.samples]);
    const uint32_t draw = static_cast<uint32_t>(args.draw[row / args.samples]);
    const auto words = [&](int64_t block) {
      return philox(draw_counter(static_cast<uint32_t>(block), draw, index), key_lo, key_hi);
    };
    for (int s = 0; s < args.count; ++s) {
      const Step& step = plan.steps[s];
      if (step.distribution == kShared) continue;
      float* delta = args.delta + row * args.dim + step.offset;
      const bool ball = step.distribution == kBall, writes = first + place < rows;
      for (int64_t block = step.word / 4 + thread; 4 * block < step.word + step.dim; block += threads) {
        const Words four = words(block);
        for (int l = 0; l < 4; ++l) {
          const int64_t j = 4 * block + l - step.word;
          if (writes && j >= 0 && j < step.dim) delta[j] = component_of(step, j, four.w[l]);
        }
      }
      if (!ball) continue;
      __syncthreads();
      if (thread < 8) {  // the order of additions that all backends keep
        double sum = 0.0;
        for (int64_t j = thread; j < step.dim; j += 8) sum += static_cast<double>(delta[j]) * delta[j];
        squares[place][thread] = sum;
      }
      __syncthreads();
      double sum = 0.0;
      for (double square : squares[place]) sum += square;
      const int64_t last = step.word + step.dim;
      const float u = uniform_of(word_of(words(last / 4), last % 4));
      const double scale = ball_scale(step.upper[0], sum, u, step.dim);
      for (int64_t j = thread; writes && j < step.dim; j += threads) delta[j] = static_cast<float>(delta[j] * scale);
      __syncthreads();
    }
  }
}

}  // namespace

void nuisance_sample(const NuisanceSampleArgs& args, Target target) {
  const int64_t rows = args.draws * args.samples;
  if (rows == 0) return;
  const int threads = args.dim <= 4 * kWarp ? kWarp : kThreads;
  launch("nuisance_sample", nuisance_sample_global, blocks_for(rows, kThreads / threads), kThreads, 1, target.stream,
         args, plan_of(args.steps, args.count), threads);
}

}  // namespace robustperf::device
