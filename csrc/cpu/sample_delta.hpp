// One draw of a program's delta.
#pragma once

#include "../core/distributions.hpp"
#include "random_fill.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

// The block of words computed last, for steps that take a few words.
struct CachedBlock {
  int64_t number;
  Words words;
};

inline void sample_step(const Step& step, uint64_t key, uint64_t index, uint32_t draw, CachedBlock& block,
                        float* delta) {
  const auto uniform = [](uint32_t word) { return uniform_of(word); };
  const auto normal = [](uint32_t word) { return normal_of(word); };
  const float lower = static_cast<float>(step.lower[0]), upper = static_cast<float>(step.upper[0]);
  const auto fill = [&](int64_t first, int64_t count, float* out, auto&& transform) {
    random_fill(key, index, draw, step.word + first, count, out, transform);
  };
  switch (step.distribution) {
    case kBox:
      for (int64_t j = 0; j < step.dim; ++j) {
        const int64_t word = step.word + j;
        if (word / 4 != block.number)
          block = {word / 4, philox(draw_counter(static_cast<uint32_t>(word / 4), draw, index),
                                    static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32))};
        delta[j] = component_of(step, j, block.words.w[word % 4]);
      }
      break;
    case kEverywhere:
      fill(0, step.dim, delta, [=](uint32_t word) { return uniform_between(lower, upper, uniform_of(word)); });
      break;
    case kNormal:
      fill(0, step.dim, delta, [=](uint32_t word) { return upper * normal_of(word); });
      break;
    case kBall: {
      fill(0, step.dim, delta, normal);
      float u;
      fill(step.dim, 1, &u, uniform);
      double squares[8] = {};  // the order of additions that all backends keep
      for (int64_t j = 0; j < step.dim; ++j) squares[j % 8] += static_cast<double>(delta[j]) * delta[j];
      double sum = 0;
      for (double square : squares) sum += square;
      const double scale = ball_scale(step.upper[0], sum, u, step.dim);
      for (int64_t j = 0; j < step.dim; ++j) delta[j] = static_cast<float>(delta[j] * scale);
      break;
    }
    case kFogDistribution:
      fill(0, step.dim, delta, uniform);
      delta[0] = uniform_between(lower, upper, delta[0]);
      break;
    default:
      break;  // shared: another step draws it
  }
}

inline void sample_delta(const Step* steps, int64_t count, uint64_t key, uint64_t index, uint32_t draw, float* delta) {
  CachedBlock block{-1, {}};
  for (int64_t s = 0; s < count; ++s) sample_step(steps[s], key, index, draw, block, delta + steps[s].offset);
}

}  // namespace robustperf::ROBUSTPERF_TARGET
