// The steps that read one pixel at a time, over a tile: forward and backward. A tile is a short run of pixels, one
// plane per channel, that stays in the L1 cache while the steps of a program pass over it.
#pragma once

#include "../core/colour.hpp"
#include "../core/distributions.hpp"
#include "fog.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

constexpr int64_t kTile = 512;  // pixels

// Pointers to the channels of a run of pixels.
template <typename T>
struct Planes {
  T* first;
  int64_t stride;
  T* operator[](int64_t c) const { return first + c * stride; }
  Planes at(int64_t pixel) const { return {first + pixel, stride}; }
};

// What some steps need of their whole input: contrast the mean grey, fog the maximum, a background of the corner's
// colour the first pixel.
struct ImageStatistics {
  double value[3];
};

// What a step needs besides the pixels.
template <typename T>
struct StepContext {
  const Step& step;
  const T* delta;  // the step's own components
  ImageStatistics statistics;
  int64_t first;  // the tile's first pixel
  int64_t height, width;
};

template <typename T, typename Body>
inline void each_value(Planes<const T> in, Planes<T> out, int channels, int64_t n, Body&& body) {
  for (int c = 0; c < channels; ++c) {
    const T* from = in[c];
    T* to = out[c];
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] = body(from[i]);
  }
}

template <typename T, typename Body>
inline void each_pixel(Planes<const T> in, Planes<T> out, int64_t n, Body&& body) {
  const T *r = in[0], *g = in[1], *b = in[2];
  T *to_r = out[0], *to_g = out[1], *to_b = out[2];
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const Pixel<T> p = body(Pixel<T>{r[i], g[i], b[i]});
    to_r[i] = p.r;
    to_g[i] = p.g;
    to_b[i] = p.b;
  }
}

template <typename T>
inline Background<T> background_at(const StepContext<T>& context) {
  const bool corner = replaces(context.step, kCorner);
  T c[3];
  for (int i = 0; i < 3; ++i)
    c[i] = static_cast<T>(corner ? context.statistics.value[i] : background_colour(context.step, i));
  return background_of(Pixel<T>{c[0], c[1], c[2]});
}

inline bool is_linear(const Step& step) { return step.transform == kBrightness || step.transform == kContrast; }

// What brightness and contrast do to a value.
template <typename T>
struct LinearMap {
  T factor, offset;
  T operator()(T x) const { return scale_and_clamp(x, factor, offset); }
};

template <typename T>
inline LinearMap<T> linear_map_of(const StepContext<T>& context) {
  const T factor = T(1) + context.delta[0];
  const T mean = static_cast<T>(context.step.transform == kContrast ? context.statistics.value[0] : 0);
  return {factor, (T(1) - factor) * mean};
}

// Two such steps in one loop; `out` may be `in`.
template <typename T>
inline void two_linear_forward(const StepContext<T>& first, const StepContext<T>& second, Planes<const T> in,
                               Planes<T> out, int64_t n) {
  each_value(in, out, first.step.channels, n,
             [one = linear_map_of(first), two = linear_map_of(second)](T x) { return two(one(x)); });
}

// One step over n pixels; `out` may be `in`.
template <typename T>
inline void step_forward(const StepContext<T>& context, Planes<const T> in, Planes<T> out, int64_t n) {
  const Step& step = context.step;
  const T d = context.delta[0];
  const int channels = step.channels;
  switch (step.transform) {
    case kBrightness:
    case kContrast:
      return each_value(in, out, channels, n, [map = linear_map_of(context)](T x) { return map(x); });
    case kSaturation:
      return each_pixel(in, out, n, [factor = T(1) + static_cast<T>(saturation_sign(step)) * d](Pixel<T> p) {
        return saturated(p, factor);
      });
    case kHue:
      return each_pixel(in, out, n, [shift = T(6) * d](Pixel<T> p) { return hue_shifted(p, shift); });
    case kGamma:
      return each_value(in, out, channels, n, [gamma = T(1) + d](T x) { return clamp01(power_of(x, gamma)); });
    case kBackground: {
      const Pixel<T> colour{context.delta[0], context.delta[1], context.delta[2]};
      if (replaces(step, kGrey)) {
        const T* from = in[0];
        T *r = out[0], *g = out[1], *b = out[2];
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
          const Pixel<T> p = blend(from[i], colour);
          r[i] = p.r;
          g[i] = p.g;
          b[i] = p.b;
        }
        return;
      }
      return each_pixel(in, out, n, [colour, from = background_at(context)](Pixel<T> p) {
        return blend(clamp01(alpha_of(p, from)), colour);
      });
    }
    case kAdd:
    case kImpulse: {
      const Planes<const T> delta{context.delta + context.first, context.height * context.width};
      const bool clamped = clamps(step);
      const T half = static_cast<T>(impulse_fraction(step)) / 2;
      for (int c = 0; c < channels; ++c) {
        const T *x = in[c], *by = delta[c];
        T* to = out[c];
        if (step.transform == kImpulse) {
#pragma omp simd
          for (int64_t i = 0; i < n; ++i) to[i] = salt_and_pepper(x[i], by[i], half);
        } else if (clamped) {
#pragma omp simd
          for (int64_t i = 0; i < n; ++i) to[i] = clamp01(x[i] + by[i]);
        } else {
#pragma omp simd
          for (int64_t i = 0; i < n; ++i) to[i] = x[i] + by[i];
        }
      }
      return;
    }
    case kShot: {
      const Planes<const T> delta{context.delta + context.first, context.height * context.width};
      const double rate = shot_rate(step);
      for (int c = 0; c < channels; ++c)
        for (int64_t i = 0; i < n; ++i)
          out[c][i] = clamp01(static_cast<T>(
              poisson_quantile(rate * static_cast<double>(in[c][i]), static_cast<double>(delta[c][i])) / rate));
      return;
    }
    case kFog: {
      T field[kTile];
      fog_field(context.delta + 1, context.first, n, context.height, context.width, field);
      const T scale = attenuation(static_cast<T>(context.statistics.value[0]), d);
      for (int c = 0; c < channels; ++c) {
        const T* x = in[c];
        T* to = out[c];
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) to[i] = clamp01((x[i] + d * field[i]) * scale);
      }
      return;
    }
    default:
      return;  // affine and blur read more than one pixel
  }
}

// A step's gradients besides that in its input.
template <typename T>
struct Gradients {
  double* delta;               // [dim], unless delta has a component for each value of the image
  T* image_delta;              // [channels, height, width], if it has
  ImageStatistics statistics;  // in the image statistics
};

// Replaces each value's gradient by body(x, gradient, d), where body sets d to the value's term of the gradient in
// delta; returns the sum of those terms.
template <typename T, typename Body>
inline T each_value_backward(Planes<const T> in, Planes<T> grad, int channels, int64_t n, Body&& body) {
  T sum = 0;
  for (int c = 0; c < channels; ++c) {
    const T* x = in[c];
    T* g = grad[c];
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) {
      T d = 0;
      g[i] = body(x[i], g[i], d);
      sum += d;
    }
  }
  return sum;
}

// The same for each pixel of three channels.
template <typename T, typename Body>
inline T each_pixel_backward(Planes<const T> in, Planes<T> grad, int64_t n, Body&& body) {
  const T *r = in[0], *g = in[1], *b = in[2];
  T *to_r = grad[0], *to_g = grad[1], *to_b = grad[2], sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    T d = 0;
    const Pixel<T> p = body(Pixel<T>{r[i], g[i], b[i]}, Pixel<T>{to_r[i], to_g[i], to_b[i]}, d);
    to_r[i] = p.r;
    to_g[i] = p.g;
    to_b[i] = p.b;
    sum += d;
  }
  return sum;
}

// The backward pass over n pixels: `grad`, of the step's output, becomes that of its input `in`.
template <typename T>
inline void step_backward(const StepContext<T>& context, Planes<const T> in, Planes<T> grad, int64_t n,
                          Gradients<T>& to) {
  const Step& step = context.step;
  const T d = context.delta[0];
  const int channels = step.channels;
  switch (step.transform) {
    case kBrightness:
      to.delta[0] += each_value_backward(in, grad, channels, n, [factor = T(1) + d](T x, T g, T& d_factor) {
        const T inside = clamp_backward(factor * x, g);
        d_factor = inside * x;
        return factor * inside;
      });
      return;
    case kGamma:
      to.delta[0] += each_value_backward(in, grad, channels, n, [gamma = T(1) + d](T x, T g, T& d_gamma) {
        return power_backward(x, gamma, g, d_gamma);
      });
      return;
    case kContrast: {
      const T factor = T(1) + d, mean = static_cast<T>(context.statistics.value[0]), offset = (T(1) - factor) * mean;
      T in_factor = 0, sum = 0;
      for (int c = 0; c < channels; ++c) {
        const T* x = in[c];
        T* g = grad[c];
#pragma omp simd reduction(+ : in_factor, sum)
        for (int64_t i = 0; i < n; ++i) {
          const T inside = clamp_backward(factor * x[i] + offset, g[i]);
          in_factor += inside * (x[i] - mean);
          sum += inside;
          g[i] = factor * inside;
        }
      }
      to.delta[0] += in_factor;
      to.statistics.value[0] += static_cast<double>(T(1) - factor) * sum;
      return;
    }
    case kSaturation: {
      const T sign = static_cast<T>(saturation_sign(step)), factor = T(1) + sign * d;
      const T sum = each_pixel_backward(in, grad, n, [factor](Pixel<T> x, Pixel<T> g, T& d_factor) {
        return saturated_backward(x, factor, g, d_factor);
      });
      to.delta[0] += static_cast<double>(sign * sum);
      return;
    }
    case kHue: {
      const T sum = each_pixel_backward(in, grad, n, [shift = T(6) * d](Pixel<T> x, Pixel<T> g, T& d_shift) {
        return hue_shift_backward(x, shift, g, d_shift);
      });
      to.delta[0] += 6 * static_cast<double>(sum);
      return;
    }
    case kBackground: {
      const Pixel<T> colour{context.delta[0], context.delta[1], context.delta[2]};
      const T *r = in[0], *g = in[1], *b = in[2];
      T *to_r = grad[0], *to_g = grad[1], *to_b = grad[2];
      T d_r = 0, d_g = 0, d_b = 0;
      if (replaces(step, kGrey)) {
#pragma omp simd reduction(+ : d_r, d_g, d_b)
        for (int64_t i = 0; i < n; ++i) {
          const T rest = T(1) - r[i];
          d_r += rest * to_r[i];
          d_g += rest * to_g[i];
          d_b += rest * to_b[i];
          to_r[i] = blend_backward(colour, {to_r[i], to_g[i], to_b[i]});
        }
        to.delta[0] += d_r;
        to.delta[1] += d_g;
        to.delta[2] += d_b;
        return;
      }
      const Background<T> from = background_at(context);
      T s_r = 0, s_g = 0, s_b = 0;
#pragma omp simd reduction(+ : d_r, d_g, d_b, s_r, s_g, s_b)
      for (int64_t i = 0; i < n; ++i) {
        const T raw = alpha_of(Pixel<T>{r[i], g[i], b[i]}, from), rest = T(1) - clamp01(raw), more = 2 * raw - 1;
        d_r += rest * to_r[i];
        d_g += rest * to_g[i];
        d_b += rest * to_b[i];
        const T d_alpha = clamp_backward(raw, blend_backward(colour, {to_r[i], to_g[i], to_b[i]}));
        // d alpha / d source: the source is in the numerator and in |white - source|^2
        s_r += d_alpha * (more * from.slope.r - (r[i] - from.source.r) * from.inverse);
        s_g += d_alpha * (more * from.slope.g - (g[i] - from.source.g) * from.inverse);
        s_b += d_alpha * (more * from.slope.b - (b[i] - from.source.b) * from.inverse);
        to_r[i] = d_alpha * from.slope.r;
        to_g[i] = d_alpha * from.slope.g;
        to_b[i] = d_alpha * from.slope.b;
      }
      to.delta[0] += d_r;
      to.delta[1] += d_g;
      to.delta[2] += d_b;
      to.statistics.value[0] += s_r;
      to.statistics.value[1] += s_g;
      to.statistics.value[2] += s_b;
      return;
    }
    case kAdd:
    case kImpulse:
    case kShot: {
      const int64_t plane = context.height * context.width;
      const T* delta = context.delta + context.first;
      const bool clamped = clamps(step);
      const T half = static_cast<T>(impulse_fraction(step)) / 2;
      for (int c = 0; c < channels; ++c) {
        T *g = grad[c], *to_delta = to.image_delta + context.first + c * plane;
        const T *x = in[c], *by = delta + c * plane;
        if (step.transform == kShot) {
          for (int64_t i = 0; i < n; ++i) g[i] = 0;  // the counts are piecewise constant in x
        } else if (step.transform == kImpulse) {
#pragma omp simd
          for (int64_t i = 0; i < n; ++i) g[i] = by[i] < half || by[i] >= T(1) - half ? T(0) : g[i];
        } else {
#pragma omp simd
          for (int64_t i = 0; i < n; ++i) {
            const T inside = clamped ? clamp_backward(x[i] + by[i], g[i]) : g[i];
            to_delta[i] += inside;
            g[i] = inside;
          }
        }
      }
      return;
    }
    case kFog: {
      T field[kTile], d_field[kTile];
      fog_field(context.delta + 1, context.first, n, context.height, context.width, field);
      const T maximum = static_cast<T>(context.statistics.value[0]), scale = attenuation(maximum, d);
      const T total = maximum + d, inverse = total > T(0) ? T(1) / total : T(0);
      T direct = 0, through = 0;
      for (int64_t i = 0; i < n; ++i) d_field[i] = 0;
      for (int c = 0; c < channels; ++c) {
        const T* x = in[c];
        T* g = grad[c];
#pragma omp simd reduction(+ : direct, through)
        for (int64_t i = 0; i < n; ++i) {
          const T foggy = x[i] + d * field[i], inside = clamp_backward(foggy * scale, g[i]);
          direct += inside * field[i] * scale;
          through += inside * foggy;
          d_field[i] += inside * d * scale;
          g[i] = inside * scale;
        }
      }
      to.delta[0] += direct - static_cast<double>(through * scale * inverse);
      to.statistics.value[0] += static_cast<double>(through * (T(1) - scale) * inverse);
      fog_backward(d_field, context.first, n, context.height, context.width, to.delta + 1);
      return;
    }
    default:
      return;
  }
}

}  // namespace robustperf::ROBUSTPERF_TARGET
