// Runs of random words: one place for all who draw.
#pragma once

#include "../core/philox.hpp"

namespace robustperf::ROBUSTPERF_ISA {

// Words first ... first + count - 1 of a draw for a sample, each put through `transform` into out[0 ... count - 1].
template <typename Transform>
inline void fill_words(uint64_t key, uint64_t index, uint32_t draw, int64_t first, int64_t count, float* out,
                       Transform&& transform) {
  constexpr int64_t kBlocks = 16;  // computed side by side, one a lane
  const uint32_t key_lo = static_cast<uint32_t>(key), key_hi = static_cast<uint32_t>(key >> 32);
  for (int64_t word = first / 4 * 4; word < first + count; word += 4 * kBlocks) {
    float values[kBlocks][4];
#pragma omp simd
    for (int64_t l = 0; l < kBlocks; ++l) {
      const Words words = philox(draw_counter(static_cast<uint32_t>(word / 4 + l), draw, index), key_lo, key_hi);
      values[l][0] = transform(words.w[0]);
      values[l][1] = transform(words.w[1]);
      values[l][2] = transform(words.w[2]);
      values[l][3] = transform(words.w[3]);
    }
    const int64_t from = larger(first - word, int64_t{0}), to = smaller(4 * kBlocks, first + count - word);
    memcpy(out + (word + from - first), &values[0][0] + from, (to - from) * sizeof(float));
  }
}

}  // namespace robustperf::ROBUSTPERF_ISA
