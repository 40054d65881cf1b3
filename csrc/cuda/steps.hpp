// The steps that read one pixel at a time, over a tile in a thread's registers: forward and backward.
#pragma once

#include "../core/affine.hpp"
#include "../core/blur.hpp"
#include "../core/colour.hpp"
#include "../core/fog.hpp"
#include "../core/distributions.hpp"
#include "plan.hpp"
#include "vector_access.hpp"

namespace robustperf::device {

// kPixels neighbouring pixels: all channels of an image of one or three channels, one channel of any other image.
template <typename T, int kPixels>
struct Tile {
  Vector<T, kPixels> v[3];
};

// The channels of a tile, and the tiles that hold all channels of a pixel.
__device__ inline int depth_of(int channels) { return channels == 3 ? 3 : 1; }
__device__ inline int tiles_of(int channels) { return channels == 3 ? 1 : channels; }

template <typename T, int kPixels>
__device__ Tile<T, kPixels> read_tile(const T* image, int64_t plane, int64_t pixel, int channel, int depth) {
  Tile<T, kPixels> b;
#pragma unroll
  for (int c = 0; c < 3; ++c)
    if (c < depth) b.v[c] = read<kPixels>(image + (channel + c) * plane + pixel);
  return b;
}

template <typename T, int kPixels>
__device__ void write_tile(T* image, int64_t plane, int64_t pixel, int channel, int depth, const Tile<T, kPixels>& b) {
#pragma unroll
  for (int c = 0; c < 3; ++c)
    if (c < depth) write(image + (channel + c) * plane + pixel, b.v[c]);
}

// What a step needs besides the pixels.
template <typename T>
struct StepContext {
  const Step& step;
  const T* delta;            // all of the image's
  const double* statistics;  // [3], of the step's whole input
  int64_t pixel;             // the first of the tile
  int channel;               // the first of the tile
  int64_t height, width;

  __device__ int depth() const { return depth_of(step.channels); }
  __device__ T d() const { return delta[step.offset]; }
  __device__ int64_t plane() const { return height * width; }
  // The component of a delta that has one for each value of the image.
  __device__ int64_t value(int c, int p) const { return step.offset + (channel + c) * plane() + pixel + p; }
};

// Calls body(value, c, p) for each value.
template <typename T, int kPixels, typename Body>
__device__ void each_value(Tile<T, kPixels>& b, int depth, Body&& body) {
#pragma unroll
  for (int c = 0; c < 3; ++c)
    if (c < depth) {
#pragma unroll
      for (int p = 0; p < kPixels; ++p) body(b.v[c][p], c, p);
    }
}

template <typename T, int kPixels>
__device__ Pixel<T> pixel_of(const Tile<T, kPixels>& b, int p) {
  return {b.v[0][p], b.v[1][p], b.v[2][p]};
}

template <typename T, int kPixels>
__device__ void put(Tile<T, kPixels>& b, int p, Pixel<T> pixel) {
  b.v[0][p] = pixel.r, b.v[1][p] = pixel.g, b.v[2][p] = pixel.b;
}

// Replaces each pixel of three channels.
template <typename T, int kPixels, typename Body>
__device__ void each_pixel(Tile<T, kPixels>& b, Body&& body) {
#pragma unroll
  for (int p = 0; p < kPixels; ++p) put(b, p, body(pixel_of(b, p)));
}

template <typename T>
__device__ Background<T> background_at(const StepContext<T>& context) {
  const bool corner = replaces(context.step, kCorner);
  T c[3];
  for (int i = 0; i < 3; ++i)
    c[i] = static_cast<T>(corner ? context.statistics[i] : background_colour(context.step, i));
  return background_of(Pixel<T>{c[0], c[1], c[2]});
}

template <typename T>
__device__ Pixel<T> colour_at(const StepContext<T>& context) {
  const T* d = context.delta + context.step.offset;
  return {d[0], d[1], d[2]};
}

template <typename T, int kPixels>
__device__ void fog_fields(const StepContext<T>& context, T (&field)[kPixels]) {
  for (int p = 0; p < kPixels; ++p) {
    const int64_t pixel = context.pixel + p;
    field[p] = fog_at(context.delta + context.step.offset + 1, pixel / context.width, pixel % context.width,
                      context.height, context.width);
  }
}

// A call: inlined for each value it would be long.
template <typename T>
__device__ __noinline__ T shot_of(T x, double u, double rate) {
  return clamp01(static_cast<T>(poisson_quantile(rate * static_cast<double>(x), u) / rate));
}

// kRegisterHeavy: whether the step may be register-heavy.
template <bool kRegisterHeavy, typename T, int kPixels>
__device__ void step_forward(const StepContext<T>& context, Tile<T, kPixels>& b) {
  const Step& step = context.step;
  const int depth = context.depth();
  switch (step.transform) {
    case kBrightness:
    case kContrast: {
      const T factor = T(1) + context.d();
      const T other = (T(1) - factor) * static_cast<T>(step.transform == kContrast ? context.statistics[0] : 0.0);
      return each_value(b, depth, [=](T& x, int, int) { x = scale_and_clamp(x, factor, other); });
    }
    case kSaturation: {
      const T factor = T(1) + static_cast<T>(saturation_sign(step)) * context.d();
      return each_pixel(b, [=](Pixel<T> p) { return saturated(p, factor); });
    }
    case kHue: {
      const T shift = T(6) * context.d();
      return each_pixel(b, [=](Pixel<T> p) { return hue_shifted(p, shift); });
    }
    case kGamma: {
      const T gamma = T(1) + context.d();
      return each_value(b, depth, [=](T& x, int, int) { x = clamp01(power_of(x, gamma)); });
    }
    case kBackground: {
      const Pixel<T> colour = colour_at(context);
      if (replaces(step, kGrey)) return each_pixel(b, [=](Pixel<T> p) { return blend(p.r, colour); });
      const Background<T> from = background_at(context);
      return each_pixel(b, [=](Pixel<T> p) { return blend(clamp01(alpha_of(p, from)), colour); });
    }
    case kAdd: {
      const bool clamped = clamps(step);
      return each_value(b, depth, [&](T& x, int c, int p) {
        const T moved = x + context.delta[context.value(c, p)];
        x = clamped ? clamp01(moved) : moved;
      });
    }
    case kImpulse: {
      const T half = static_cast<T>(impulse_fraction(step)) / 2;
      return each_value(b, depth,
                        [&](T& x, int c, int p) { x = salt_and_pepper(x, context.delta[context.value(c, p)], half); });
    }
    default:
      break;  // affine and blur read more than one pixel
  }
  if constexpr (kRegisterHeavy) {
    if (step.transform == kShot) {
      each_value(b, depth, [&](T& x, int c, int p) {
        x = shot_of(x, static_cast<double>(context.delta[context.value(c, p)]), shot_rate(step));
      });
    } else if (step.transform == kFog) {
      const T d = context.d(), by = attenuation(static_cast<T>(context.statistics[0]), d);
      T field[kPixels];
      fog_fields(context, field);
      each_value(b, depth, [&](T& x, int, int p) { x = clamp01((x + d * field[p]) * by); });
    }
  }
}

// A step's gradients besides that in its input.
template <typename T>
struct Gradients {
  double delta[3];       // in the first components of delta, the tile's contribution
  double statistics[3];  // in the image statistics, likewise
  T* image_delta;  // receives the gradient in a delta with a component for each value; null in all passes but the last
  T* field;        // receives that in the field of fog, a number per pixel; null likewise
};

// `g`, of the step's output, becomes that of its input `in`. Adds to the sums of `to`.
template <bool kRegisterHeavy, typename T, int kPixels>
__device__ void step_backward(const StepContext<T>& context, const Tile<T, kPixels>& in, Tile<T, kPixels>& g,
                              Gradients<T>& to) {
  const Step& step = context.step;
  const int depth = context.depth();
  switch (step.transform) {
    case kBrightness: {
      const T factor = T(1) + context.d();
      T sum = 0;
      each_value(g, depth, [&](T& grad, int c, int p) {
        const T x = in.v[c][p], inside = clamp_backward(factor * x, grad);
        sum += inside * x;
        grad = factor * inside;
      });
      to.delta[0] += static_cast<double>(sum);
      return;
    }
    case kContrast: {
      const T factor = T(1) + context.d(), mean = static_cast<T>(context.statistics[0]),
              offset = (T(1) - factor) * mean;
      T in_factor = 0, sum = 0;
      each_value(g, depth, [&](T& grad, int c, int p) {
        const T x = in.v[c][p], inside = clamp_backward(factor * x + offset, grad);
        in_factor += inside * (x - mean);
        sum += inside;
        grad = factor * inside;
      });
      to.delta[0] += static_cast<double>(in_factor);
      to.statistics[0] += static_cast<double>(T(1) - factor) * static_cast<double>(sum);
      return;
    }
    case kSaturation: {
      const T sign = static_cast<T>(saturation_sign(step)), factor = T(1) + sign * context.d();
      T sum = 0;
#pragma unroll
      for (int p = 0; p < kPixels; ++p) put(g, p, saturated_backward(pixel_of(in, p), factor, pixel_of(g, p), sum));
      to.delta[0] += static_cast<double>(sign * sum);
      return;
    }
    case kHue: {
      const T shift = T(6) * context.d();
      T sum = 0;
#pragma unroll
      for (int p = 0; p < kPixels; ++p) put(g, p, hue_shift_backward(pixel_of(in, p), shift, pixel_of(g, p), sum));
      to.delta[0] += 6 * static_cast<double>(sum);
      return;
    }
    case kGamma: {
      const T gamma = T(1) + context.d();
      T sum = 0;
      each_value(g, depth, [&](T& grad, int c, int p) { grad = power_backward(in.v[c][p], gamma, grad, sum); });
      to.delta[0] += static_cast<double>(sum);
      return;
    }
    case kBackground: {
      const Pixel<T> colour = colour_at(context);
      const bool grey = replaces(step, kGrey);
      const Background<T> from = grey ? Background<T>{} : background_at(context);
      T d[3] = {}, s[3] = {};
#pragma unroll
      for (int p = 0; p < kPixels; ++p) {
        const Pixel<T> x = pixel_of(in, p), grad = pixel_of(g, p);
        const T raw = grey ? x.r : alpha_of(x, from), rest = T(1) - (grey ? raw : clamp01(raw)), more = 2 * raw - 1;
        d[0] += rest * grad.r, d[1] += rest * grad.g, d[2] += rest * grad.b;
        const T through = blend_backward(colour, grad), d_alpha = grey ? through : clamp_backward(raw, through);
        // d alpha / d source: the source is in the numerator and in |white - source|^2
        s[0] += d_alpha * (more * from.slope.r - (x.r - from.source.r) * from.inverse);
        s[1] += d_alpha * (more * from.slope.g - (x.g - from.source.g) * from.inverse);
        s[2] += d_alpha * (more * from.slope.b - (x.b - from.source.b) * from.inverse);
        put(g, p,
            grey ? Pixel<T>{d_alpha, T(0), T(0)}
                 : Pixel<T>{d_alpha * from.slope.r, d_alpha * from.slope.g, d_alpha * from.slope.b});
      }
      for (int c = 0; c < 3; ++c) {
        to.delta[c] += static_cast<double>(d[c]);
        to.statistics[c] += static_cast<double>(s[c]);
      }
      return;
    }
    case kAdd: {
      const bool clamped = clamps(step);
      each_value(g, depth, [&](T& grad, int c, int p) {
        const int64_t value = context.value(c, p);
        const T inside = clamped ? clamp_backward(in.v[c][p] + context.delta[value], grad) : grad;
        if (to.image_delta != nullptr) to.image_delta[value] += inside;
        grad = inside;
      });
      return;
    }
    case kImpulse: {
      const T half = static_cast<T>(impulse_fraction(step)) / 2;
      each_value(g, depth, [&](T& grad, int c, int p) {
        const T by = context.delta[context.value(c, p)];
        grad = by < half || by >= T(1) - half ? T(0) : grad;
      });
      return;
    }
    case kShot:  // the counts are piecewise constant in x
      each_value(g, depth, [](T& grad, int, int) { grad = 0; });
      return;
    default:
      break;
  }
  if constexpr (kRegisterHeavy) {
    if (step.transform != kFog) return;
    const T d = context.d(), maximum = static_cast<T>(context.statistics[0]), scale = attenuation(maximum, d),
            total = maximum + d;
    const T inverse = total > T(0) ? T(1) / total : T(0);
    T field[kPixels], d_field[kPixels] = {}, direct = 0, through = 0;
    fog_fields(context, field);
    each_value(g, depth, [&](T& grad, int c, int p) {
      const T foggy = in.v[c][p] + d * field[p], inside = clamp_backward(foggy * scale, grad);
      direct += inside * field[p] * scale;
      through += inside * foggy;
      d_field[p] += inside * d * scale;
      grad = inside * scale;
    });
    to.delta[0] += static_cast<double>(direct) - static_cast<double>(through * scale * inverse);
    to.statistics[0] += static_cast<double>(through * (T(1) - scale) * inverse);
    if (to.field != nullptr) {
      T* here = to.field + context.pixel;
      Vector<T, kPixels> sum = context.channel == 0 ? Vector<T, kPixels>{} : read<kPixels>(here);
#pragma unroll
      for (int p = 0; p < kPixels; ++p) sum[p] += d_field[p];
      write(here, sum);
    }
  }
}

}  // namespace robustperf::device
