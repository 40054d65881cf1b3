// Counter-based draws: a thread computes the four components of a block of words.
#include "../core/draws.hpp"

#include "launch.hpp"
#include "random_key.hpp"
#include "vector_access.hpp"

namespace robustperf::device {
namespace {

constexpr int kThreads = 256;

template <bool kNormal>
__global__ void __launch_bounds__(kThreads) draws_global(const __grid_constant__ DrawsArgs args, int64_t blocks) {
  const uint64_t key = key_of(args);
  const uint32_t key_lo = static_cast<uint32_t>(key), key_hi = static_cast<uint32_t>(key >> 32);
  const int64_t items = args.draws * args.samples * blocks, step = static_cast<int64_t>(gridDim.x) * kThreads;
  const bool aligned = args.dim % 4 == 0 && reinterpret_cast<uintptr_t>(args.out) % 16 == 0;
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; item < items; item += step) {
    const int64_t row = item / blocks, block = item % blocks;
    const uint64_t index = static_cast<uint64_t>(args.index[row % args.samples]);
    const uint32_t draw = static_cast<uint32_t>(args.draw[row / args.samples]);
    const Words words = philox(draw_counter(static_cast<uint32_t>(block), draw, index), key_lo, key_hi);
    Vector<float, 4> values;
    for (int l = 0; l < 4; ++l) values[l] = kNormal ? normal_of(words.w[l]) : uniform_of(words.w[l]);
    float* out = args.out + row * args.dim + 4 * block;
    if (aligned) {
      write(out, values);
    } else {
      for (int64_t l = 0; l < 4; ++l)
        if (4 * block + l < args.dim) out[l] = values[l];
    }
  }
}

}  // namespace

void draws(const DrawsArgs& args, Target target) {
  const int64_t blocks = blocks_for(args.dim, 4), items = args.draws * args.samples * blocks;
  if (items == 0) return;
  launch("draws", args.normal ? draws_global<true> : draws_global<false>, blocks_for(items, kThreads), kThreads, 1,
         target.stream, args, blocks);
}

}  // namespace robustperf::device
