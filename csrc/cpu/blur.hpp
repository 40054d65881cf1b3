// Gaussian blur of an image: along the rows, then along the columns.
#pragma once

#include "../core/blur.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

template <typename T>
inline Taps<T> taps_of(int radius, double sigma) {
  Taps<T> taps{};
  taps.radius = radius;
  Gaussian gaussians[kMaxRadius + 1]{};
  for (int j = 0; j <= radius; ++j) gaussians[j] = gaussian_at(j, sigma);
  const Gaussian sum = sum_of_gaussians(gaussians, radius);
  for (int j = 0; j <= radius; ++j) set_tap(taps, j, gaussians[j], sum);
  return taps;
}

// out[i] = sum over j of w[|j|] in[mirrored(i + j)] along the middle axis of [outer, size, inner]; `in` is not `out`.
template <typename T>
inline void filter(const T* in, T* out, const T* w, int radius, int64_t outer, int64_t size, int64_t inner) {
  for (int64_t o = 0; o < outer; ++o, in += size * inner, out += size * inner) {
#pragma omp simd
    for (int64_t i = 0; i < size * inner; ++i) out[i] = w[0] * in[i];
    for (int j = 1; j <= radius; ++j) {
      const auto add = [&](int64_t i) {  // at an edge
        const T *before = in + mirrored(i - j, size) * inner, *after = in + mirrored(i + j, size) * inner;
        for (int64_t x = 0; x < inner; ++x) out[i * inner + x] += w[j] * (before[x] + after[x]);
      };
      const int64_t first = min_of(int64_t{j}, size), last = max_of(size - j, first);
      for (int64_t i = 0; i < first; ++i) add(i);
      const int64_t step = j * inner;
#pragma omp simd
      for (int64_t i = first * inner; i < last * inner; ++i) out[i] += w[j] * (in[i - step] + in[i + step]);
      for (int64_t i = last; i < size; ++i) add(i);
    }
  }
}

// The transposed filter: adds each output's gradient to the inputs it came from. `grad` is not `out`.
template <typename T>
inline void filter_backward(const T* grad, T* out, const T* w, int radius, int64_t outer, int64_t size, int64_t inner) {
  for (int64_t o = 0; o < outer; ++o, grad += size * inner, out += size * inner) {
#pragma omp simd
    for (int64_t i = 0; i < size * inner; ++i) out[i] = w[0] * grad[i];
    for (int j = 1; j <= radius; ++j) {
      const auto add = [&](int64_t i, int64_t place) {
        T* to = out + mirrored(place, size) * inner;
        for (int64_t x = 0; x < inner; ++x) to[x] += w[j] * grad[i * inner + x];
      };
      const int64_t inside = max_of(size - j, int64_t{0}), step = j * inner;
#pragma omp simd
      for (int64_t i = 0; i < inside * inner; ++i) out[i] += w[j] * grad[i + step];
#pragma omp simd
      for (int64_t i = 0; i < inside * inner; ++i) out[i + step] += w[j] * grad[i];
      for (int64_t i = 0; i < min_of(int64_t{j}, size); ++i) add(i, i - j);
      for (int64_t i = inside; i < size; ++i) add(i, i + j);
    }
  }
}

// `image` and `out` may be the same; `between` is scratch, another image.
template <typename T>
inline void blur(const T* image, const Taps<T>& taps, int channels, int64_t height, int64_t width, T* between, T* out) {
  filter(image, between, taps.weight, taps.radius, channels * height, width, 1);
  filter(between, out, taps.weight, taps.radius, channels, height, width);
}

// `grad`, of the output, becomes that of `image`; `between` and `spare` are scratch, two images. Returns the gradient
// in sigma, which is in the weights along the rows and along the columns.
template <typename T>
inline double blur_backward(const T* image, const Taps<T>& taps, int channels, int64_t height, int64_t width, T* grad,
                            T* between, T* spare) {
  double d_sigma = 0;
  for (int pass = 0; pass < 2; ++pass) {
    const bool in_rows = pass == 1;
    filter_backward(grad, spare, in_rows ? taps.weight : taps.slope, taps.radius, channels, height, width);
    filter(image, between, in_rows ? taps.slope : taps.weight, taps.radius, channels * height, width, 1);
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < channels * height * width; ++i) sum += spare[i] * between[i];
    d_sigma += sum;
  }
  filter_backward(spare, grad, taps.weight, taps.radius, channels * height, width, 1);
  return d_sigma;
}

}  // namespace robustperf::ROBUSTPERF_TARGET
