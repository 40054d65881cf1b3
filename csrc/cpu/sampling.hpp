// One draw of a program's delta.
#pragma once

#include "../core/laws.hpp"
#include "words.hpp"

namespace robustperf::ROBUSTPERF_ISA {

// The last block of words that was made, for the steps that take a few.
struct Block {
  int64_t number;
  Words words;
};

inline void sample_step(const Step& step, uint64_t key, uint64_t index, uint32_t draw, Block& at_hand, float* delta) {
  const auto uniform = [](uint32_t word) { return uniform_of(word); };
  const auto normal = [](uint32_t word) { return normal_of(word); };
  const float lower = static_cast<float>(step.numbers[0]), upper = static_cast<float>(step.numbers[kBounds]);
  const auto fill = [&](int64_t first, int64_t count, float* out, auto&& transform) {
    fill_words(key, index, draw, step.word + first, count, out, transform);
  };
  switch (step.law) {
    case kBox:  // a few words: block by block
      for (int64_t j = 0; j < step.dim; ++j) {
        const int64_t word = step.word + j;
        if (word / 4 != at_hand.number)
          at_hand = {word / 4, philox(draw_counter(static_cast<uint32_t>(word / 4), draw, index),
                                      static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32))};
        delta[j] = between(static_cast<float>(step.numbers[j]), static_cast<float>(step.numbers[kBounds + j]),
                           uniform_of(at_hand.words.w[word % 4]));
      }
      break;
    case kEverywhere:
      fill(0, step.dim, delta, [=](uint32_t word) { return between(lower, upper, uniform_of(word)); });
      break;
    case kNormal:
      fill(0, step.dim, delta, [=](uint32_t word) { return upper * normal_of(word); });
      break;
    case kBall: {
      fill(0, step.dim, delta, normal);
      float u;
      fill(step.dim, 1, &u, uniform);
      double squares[8] = {};
      for (int64_t j = 0; j < step.dim; ++j) squares[j % 8] += static_cast<double>(delta[j]) * delta[j];
      double sum = 0;
      for (double square : squares) sum += square;
      const double scale = ball_scale(step.numbers[kBounds], sum, u, step.dim);
      for (int64_t j = 0; j < step.dim; ++j) delta[j] = static_cast<float>(delta[j] * scale);
      break;
    }
    case kFogLaw:
      fill(0, step.dim, delta, uniform);
      delta[0] = between(lower, upper, delta[0]);
      break;
    default:
      break;  // shared: drawn by another step
  }
}

inline void sample_program(const Step* steps, int64_t count, uint64_t key, uint64_t index, uint32_t draw,
                           float* delta) {
  Block at_hand{-1, {}};
  for (int64_t s = 0; s < count; ++s) sample_step(steps[s], key, index, draw, at_hand, delta + steps[s].offset);
}

}  // namespace robustperf::ROBUSTPERF_ISA
