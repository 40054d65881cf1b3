// The steps of a nuisance program on pixels in registers, forth and back.
#pragma once

#include "../core/affine.hpp"
#include "../core/blur.hpp"
#include "../core/colour.hpp"
#include "../core/fog.hpp"
#include "../core/laws.hpp"
#include "pack.hpp"
#include "plan.hpp"

namespace robustperf::cuda {

using namespace robustperf::ROBUSTPERF_ISA;

// kPixels neighbouring pixels: all channels of an image of one or three, one channel of any other.
template <typename T, int kPixels>
struct Bundle {
  Pack<T, kPixels> v[3];
};

// Channels in a bundle, and bundles above one another, for images of so many channels.
__device__ inline int depth_of(int channels) { return channels == 3 ? 3 : 1; }
__device__ inline int bundles_of(int channels) { return channels == 3 ? 1 : channels; }

template <typename T, int kPixels>
__device__ Bundle<T, kPixels> read_bundle(const T* image, int64_t plane, int64_t pixel, int channel, int depth) {
  Bundle<T, kPixels> b;
#pragma unroll
  for (int c = 0; c < 3; ++c)
    if (c < depth) b.v[c] = read<kPixels>(image + (channel + c) * plane + pixel);
  return b;
}

template <typename T, int kPixels>
__device__ void write_bundle(T* image, int64_t plane, int64_t pixel, int channel, int depth,
                             const Bundle<T, kPixels>& b) {
#pragma unroll
  for (int c = 0; c < 3; ++c)
    if (c < depth) write(image + (channel + c) * plane + pixel, b.v[c]);
}

// What a step needs beside the pixels.
template <typename T>
struct Site {
  const Step& step;
  const T* delta;       // all of the image's
  const double* whole;  // three numbers: what the step wanted to know of the image
  int64_t pixel;        // the first of the bundle
  int channel;          // likewise
  int64_t height, width;

  __device__ int depth() const { return depth_of(step.channels); }
  __device__ T d() const { return delta[step.offset]; }
  __device__ int64_t plane() const { return height * width; }
  // The place of a value in a delta with a number for each.
  __device__ int64_t value(int c, int p) const { return step.offset + (channel + c) * plane() + pixel + p; }
};

// Calls body(value, c, p) for each value.
template <typename T, int kPixels, typename Body>
__device__ void each_value(Bundle<T, kPixels>& b, int depth, Body&& body) {
#pragma unroll
  for (int c = 0; c < 3; ++c)
    if (c < depth) {
#pragma unroll
      for (int p = 0; p < kPixels; ++p) body(b.v[c][p], c, p);
    }
}

template <typename T, int kPixels>
__device__ Pixel<T> pixel_of(const Bundle<T, kPixels>& b, int p) {
  return {b.v[0][p], b.v[1][p], b.v[2][p]};
}

template <typename T, int kPixels>
__device__ void put(Bundle<T, kPixels>& b, int p, Pixel<T> pixel) {
  b.v[0][p] = pixel.r, b.v[1][p] = pixel.g, b.v[2][p] = pixel.b;
}

// Replaces each pixel of three channels.
template <typename T, int kPixels, typename Body>
__device__ void each_pixel(Bundle<T, kPixels>& b, Body&& body) {
#pragma unroll
  for (int p = 0; p < kPixels; ++p) put(b, p, body(pixel_of(b, p)));
}

template <typename T>
__device__ Background<T> background_at(const Site<T>& site) {
  const bool corner = setting(site.step, 0) == kCorner;
  T c[3];
  for (int i = 0; i < 3; ++i) c[i] = static_cast<T>(corner ? site.whole[i] : setting(site.step, 1 + i));
  return background_of(Pixel<T>{c[0], c[1], c[2]});
}

template <typename T>
__device__ Pixel<T> colour_at(const Site<T>& site) {
  const T* d = site.delta + site.step.offset;
  return {d[0], d[1], d[2]};
}

template <typename T, int kPixels>
__device__ void fog_fields(const Site<T>& site, T (&field)[kPixels]) {
  for (int p = 0; p < kPixels; ++p) {
    const int64_t pixel = site.pixel + p;
    field[p] =
        fog_at(site.delta + site.step.offset + 1, pixel / site.width, pixel % site.width, site.height, site.width);
  }
}

// Called, not repeated for each value: it is long.
template <typename T>
__device__ __noinline__ T shot_of(T x, double u, double rate) {
  return unit(static_cast<T>(poisson_quantile(rate * static_cast<double>(x), u) / rate));
}

// kRare: whether the steps may be rare ones.
template <bool kRare, typename T, int kPixels>
__device__ void step_forward(const Site<T>& site, Bundle<T, kPixels>& b) {
  const Step& step = site.step;
  const int depth = site.depth();
  switch (step.transform) {
    case kBrightness:
    case kContrast: {
      const T factor = T(1) + site.d();
      const T other = (T(1) - factor) * static_cast<T>(step.transform == kContrast ? site.whole[0] : 0.0);
      return each_value(b, depth, [=](T& x, int, int) { x = blended(x, factor, other); });
    }
    case kSaturation: {
      const T factor = T(1) + static_cast<T>(setting(step, 0)) * site.d();
      return each_pixel(b, [=](Pixel<T> p) { return saturated(p, factor); });
    }
    case kHue: {
      const T shift = T(6) * site.d();
      return each_pixel(b, [=](Pixel<T> p) { return turned(p, shift); });
    }
    case kGamma: {
      const T gamma = T(1) + site.d();
      return each_value(b, depth, [=](T& x, int, int) { x = unit(power_of(x, gamma)); });
    }
    case kBackground: {
      const Pixel<T> colour = colour_at(site);
      if (setting(step, 0) == kGrey) return each_pixel(b, [=](Pixel<T> p) { return laid_on(p.r, colour); });
      const Background<T> from = background_at(site);
      return each_pixel(b, [=](Pixel<T> p) { return laid_on(unit(share_of(p, from)), colour); });
    }
    case kAdd: {
      const bool clamped = setting(step, 0) != 0;
      return each_value(b, depth, [&](T& x, int c, int p) {
        const T moved = x + site.delta[site.value(c, p)];
        x = clamped ? unit(moved) : moved;
      });
    }
    case kImpulse: {
      const T half = static_cast<T>(setting(step, 0)) / 2;
      return each_value(b, depth, [&](T& x, int c, int p) { x = salted(x, site.delta[site.value(c, p)], half); });
    }
    default:
      break;  // affine and blur look at more than one pixel
  }
  if constexpr (kRare) {
    if (step.transform == kShot) {
      each_value(b, depth, [&](T& x, int c, int p) {
        x = shot_of(x, static_cast<double>(site.delta[site.value(c, p)]), setting(step, 0));
      });
    } else if (step.transform == kFog) {
      const T d = site.d(), by = veil(static_cast<T>(site.whole[0]), d);
      T field[kPixels];
      fog_fields(site, field);
      each_value(b, depth, [&](T& x, int, int p) { x = unit((x + d * field[p]) * by); });
    }
  }
}

// The gradients that a step hands on beside that in its pixels.
template <typename T>
struct Gradients {
  double small[3];  // in the first components of delta, the bundle's contribution
  double whole[3];  // in what the step wanted to know, likewise
  T* image;         // where that in delta goes if it has a number for each value; null in all passes but the last
  T* field;         // where that in the field of fog goes, a number a pixel; null likewise
};

// `g`, of the step's results, becomes that of its input `in`; the sums of `to` are added to.
template <bool kRare, typename T, int kPixels>
__device__ void step_backward(const Site<T>& site, const Bundle<T, kPixels>& in, Bundle<T, kPixels>& g,
                              Gradients<T>& to) {
  const Step& step = site.step;
  const int depth = site.depth();
  switch (step.transform) {
    case kBrightness: {
      const T factor = T(1) + site.d();
      T sum = 0;
      each_value(g, depth, [&](T& grad, int c, int p) {
        const T x = in.v[c][p], inside = behind_unit(factor * x, grad);
        sum += inside * x;
        grad = factor * inside;
      });
      to.small[0] += static_cast<double>(sum);
      return;
    }
    case kContrast: {
      const T factor = T(1) + site.d(), mean = static_cast<T>(site.whole[0]), other = (T(1) - factor) * mean;
      T along = 0, sum = 0;
      each_value(g, depth, [&](T& grad, int c, int p) {
        const T x = in.v[c][p], inside = behind_unit(factor * x + other, grad);
        along += inside * (x - mean);
        sum += inside;
        grad = factor * inside;
      });
      to.small[0] += static_cast<double>(along);
      to.whole[0] += static_cast<double>(T(1) - factor) * static_cast<double>(sum);
      return;
    }
    case kSaturation: {
      const T sign = static_cast<T>(setting(step, 0)), factor = T(1) + sign * site.d();
      T sum = 0;
#pragma unroll
      for (int p = 0; p < kPixels; ++p) put(g, p, saturated_backward(pixel_of(in, p), factor, pixel_of(g, p), sum));
      to.small[0] += static_cast<double>(sign * sum);
      return;
    }
    case kHue: {
      const T shift = T(6) * site.d();
      T sum = 0;
#pragma unroll
      for (int p = 0; p < kPixels; ++p) put(g, p, turned_backward(pixel_of(in, p), shift, pixel_of(g, p), sum));
      to.small[0] += 6 * static_cast<double>(sum);
      return;
    }
    case kGamma: {
      const T gamma = T(1) + site.d();
      T sum = 0;
      each_value(g, depth, [&](T& grad, int c, int p) { grad = power_backward(in.v[c][p], gamma, grad, sum); });
      to.small[0] += static_cast<double>(sum);
      return;
    }
    case kBackground: {
      const Pixel<T> colour = colour_at(site);
      const bool grey = setting(step, 0) == kGrey;
      const Background<T> from = grey ? Background<T>{} : background_at(site);
      T d[3] = {}, s[3] = {};
#pragma unroll
      for (int p = 0; p < kPixels; ++p) {
        const Pixel<T> x = pixel_of(in, p), grad = pixel_of(g, p);
        const T raw = grey ? x.r : share_of(x, from), rest = T(1) - (grey ? raw : unit(raw)), more = 2 * raw - 1;
        d[0] += rest * grad.r, d[1] += rest * grad.g, d[2] += rest * grad.b;
        const T through = laid_on_backward(colour, grad), d_share = grey ? through : behind_unit(raw, through);
        // d share / d source: it moves the numerator and |white - source|^2
        s[0] += d_share * (more * from.slope.r - (x.r - from.source.r) * from.inverse);
        s[1] += d_share * (more * from.slope.g - (x.g - from.source.g) * from.inverse);
        s[2] += d_share * (more * from.slope.b - (x.b - from.source.b) * from.inverse);
        put(g, p,
            grey ? Pixel<T>{d_share, T(0), T(0)}
                 : Pixel<T>{d_share * from.slope.r, d_share * from.slope.g, d_share * from.slope.b});
      }
      for (int c = 0; c < 3; ++c) {
        to.small[c] += static_cast<double>(d[c]);
        to.whole[c] += static_cast<double>(s[c]);
      }
      return;
    }
    case kAdd: {
      const bool clamped = setting(step, 0) != 0;
      each_value(g, depth, [&](T& grad, int c, int p) {
        const int64_t value = site.value(c, p);
        const T inside = clamped ? behind_unit(in.v[c][p] + site.delta[value], grad) : grad;
        if (to.image != nullptr) to.image[value] += inside;
        grad = inside;
      });
      return;
    }
    case kImpulse: {
      const T half = static_cast<T>(setting(step, 0)) / 2;
      each_value(g, depth, [&](T& grad, int c, int p) {
        const T by = site.delta[site.value(c, p)];
        grad = by < half || by >= T(1) - half ? T(0) : grad;
      });
      return;
    }
    case kShot:  // counts jump
      each_value(g, depth, [](T& grad, int, int) { grad = 0; });
      return;
    default:
      break;
  }
  if constexpr (kRare) {
    if (step.transform != kFog) return;
    const T d = site.d(), most = static_cast<T>(site.whole[0]), by = veil(most, d), both = most + d;
    const T inverse = both > T(0) ? T(1) / both : T(0);
    T field[kPixels], d_field[kPixels] = {}, direct = 0, through = 0;
    fog_fields(site, field);
    each_value(g, depth, [&](T& grad, int c, int p) {
      const T thick = in.v[c][p] + d * field[p], inside = behind_unit(thick * by, grad);
      direct += inside * field[p] * by;
      through += inside * thick;
      d_field[p] += inside * d * by;
      grad = inside * by;
    });
    to.small[0] += static_cast<double>(direct) - static_cast<double>(through * by * inverse);
    to.whole[0] += static_cast<double>(through * (T(1) - by) * inverse);
    if (to.field != nullptr) {
      T* here = to.field + site.pixel;
      Pack<T, kPixels> sum = site.channel == 0 ? Pack<T, kPixels>{} : read<kPixels>(here);
#pragma unroll
      for (int p = 0; p < kPixels; ++p) sum[p] += d_field[p];
      write(here, sum);
    }
  }
}

}  // namespace robustperf::cuda
