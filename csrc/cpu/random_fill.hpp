// Runs of random words.
#pragma once

#include "../core/philox.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

// out[i] = transform(word first + i) for i in 0 ... count - 1, from the words of a draw for a sample.
template <typename Transform>
inline void random_fill(uint64_t key, uint64_t index, uint32_t draw, int64_t first, int64_t count, float* out,
                        Transform&& transform) {
  constexpr int64_t kBlocks = 16;  // computed side by side, one per SIMD lane
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
    const int64_t from = max_of(first - word, int64_t{0}), to = min_of(4 * kBlocks, first + count - word);
    memcpy(out + (word + from - first), &values[0][0] + from, (to - from) * sizeof(float));
  }
}

}  // namespace robustperf::ROBUSTPERF_TARGET
