// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011), and uniforms and normals from its words.
//
// A draw is a function of (key, sample id, draw, component) and nothing else, so no result depends on the batch size,
// the number of threads or processes, or the device. No operation below may be contracted or reordered: the build turns
// contraction off, which keeps the normals bit-identical everywhere.
#pragma once

#include "elementary.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

struct Words {
  uint32_t w[4];
};

ROBUSTPERF_HD inline Words philox(Words counter, uint32_t key_lo, uint32_t key_hi) {
  uint32_t c0 = counter.w[0], c1 = counter.w[1], c2 = counter.w[2], c3 = counter.w[3];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c0;
    const uint64_t p1 = uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ key_lo;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ key_hi;
    c3 = static_cast<uint32_t>(p0);
    key_lo += 0x9E3779B9;
    key_hi += 0xBB67AE85;
  }
  return {{c0, c1, c2, c3}};
}

// The counter of components 4 * block ... 4 * block + 3 of draw `draw` for sample `index`.
ROBUSTPERF_HD inline Words draw_counter(uint32_t block, uint32_t draw, uint64_t index) {
  return {{block, draw, static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32)}};
}

// [0, 1), a multiple of 2^-24.
ROBUSTPERF_HD inline float uniform_of(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

// The standard normal quantile of (2 (word >> 8) + 1) / 2^25. One word per normal, so that the number of words never
// depends on their values. Within 2e-6 of the exact quantile, |result| < 5.5. The two polynomials are those of
// M. Giles, "Approximating the erfinv function" (2010), single precision.
ROBUSTPERF_HD inline float normal_of(uint32_t word) {
  const float x = static_cast<float>(2 * static_cast<int32_t>(word >> 8) + 1 - (1 << 24)) * 0x1p-24f;  // exact
  const float w = -log_of((1.0f - x) * (1.0f + x));
  const float s = w - 2.5f;
  float central = 2.81022636e-08f;
  central = central * s + 3.43273939e-07f;
  central = central * s - 3.5233877e-06f;
  central = central * s - 4.39150654e-06f;
  central = central * s + 0.00021858087f;
  central = central * s - 0.00125372503f;
  central = central * s - 0.00417768164f;
  central = central * s + 0.246640727f;
  central = central * s + 1.50140941f;
  const float t = ::sqrtf(max_of(w, 0.0f)) - 3.0f;
  float tail = -0.000200214257f;
  tail = tail * t + 0.000100950558f;
  tail = tail * t + 0.00134934322f;
  tail = tail * t - 0.00367342844f;
  tail = tail * t + 0.00573950773f;
  tail = tail * t - 0.0076224613f;
  tail = tail * t + 0.00943887047f;
  tail = tail * t + 1.00167406f;
  tail = tail * t + 2.83297682f;
  return (w < 5.0f ? central : tail) * x * 1.41421356f;
}

}  // namespace robustperf::ROBUSTPERF_TARGET
