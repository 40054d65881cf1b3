// Tiles: short runs of pixels, a plane a channel, that stay in the first cache while the steps of a program pass over
// them. Here are the loops over a tile for each step that looks at one pixel at a time, forth and back.
#pragma once

#include "../core/colour.hpp"
#include "../core/laws.hpp"
#include "fog.hpp"
#include "kernels.hpp"

namespace robustperf::ROBUSTPERF_ISA {

// Where channel c of a run of pixels begins.
template <typename T>
struct Planes {
  T* first;
  int64_t stride;
  T* operator[](int64_t c) const { return first + c * stride; }
  Planes at(int64_t pixel) const { return {first + pixel, stride}; }
};

// The whole image at a moment, which some steps want to know: the mean grey for contrast, the greatest value for fog,
// the corner's colour for the background.
struct Whole {
  double value[3];
};

// What a step needs beside the pixels.
template <typename T>
struct Site {
  const Step& step;
  const T* delta;  // the step's own components
  Whole whole;
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
inline Background<T> background_at(const Site<T>& site) {
  const bool corner = setting(site.step, 0) == kCorner;
  T c[3];
  for (int i = 0; i < 3; ++i) c[i] = static_cast<T>(corner ? site.whole.value[i] : setting(site.step, 1 + i));
  return background_of(Pixel<T>{c[0], c[1], c[2]});
}

inline bool is_line(const Step& step) { return step.transform == kBrightness || step.transform == kContrast; }

// What brightness and contrast do to a value.
template <typename T>
struct Line {
  T factor, other;
  T operator()(T x) const { return blended(x, factor, other); }
};

template <typename T>
inline Line<T> line_of(const Site<T>& site) {
  const T factor = T(1) + site.delta[0];
  const T mean = static_cast<T>(site.step.transform == kContrast ? site.whole.value[0] : 0);
  return {factor, (T(1) - factor) * mean};
}

// Two such steps in one loop; `out` may be `in`.
template <typename T>
inline void lines_forward(const Site<T>& first, const Site<T>& second, Planes<const T> in, Planes<T> out, int64_t n) {
  each_value(in, out, first.step.channels, n,
             [one = line_of(first), two = line_of(second)](T x) { return two(one(x)); });
}

// One step over n pixels; `out` may be `in`.
template <typename T>
inline void step_forward(const Site<T>& site, Planes<const T> in, Planes<T> out, int64_t n) {
  const Step& step = site.step;
  const T d = site.delta[0];
  const int channels = step.channels;
  switch (step.transform) {
    case kBrightness:
    case kContrast:
      return each_value(in, out, channels, n, [line = line_of(site)](T x) { return line(x); });
    case kSaturation:
      return each_pixel(in, out, n, [factor = T(1) + static_cast<T>(setting(step, 0)) * d](Pixel<T> p) {
        return saturated(p, factor);
      });
    case kHue:
      return each_pixel(in, out, n, [shift = T(6) * d](Pixel<T> p) { return turned(p, shift); });
    case kGamma:
      return each_value(in, out, channels, n, [gamma = T(1) + d](T x) { return unit(power_of(x, gamma)); });
    case kBackground: {
      const Pixel<T> colour{site.delta[0], site.delta[1], site.delta[2]};
      if (setting(step, 0) == kGrey) {
        const T* from = in[0];
        T *r = out[0], *g = out[1], *b = out[2];
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
          const Pixel<T> p = laid_on(from[i], colour);
          r[i] = p.r;
          g[i] = p.g;
          b[i] = p.b;
        }
        return;
      }
      return each_pixel(in, out, n, [colour, from = background_at(site)](Pixel<T> p) {
        return laid_on(unit(share_of(p, from)), colour);
      });
    }
    case kAdd:
    case kImpulse: {
      const Planes<const T> delta{site.delta + site.first, site.height * site.width};
      const bool clamped = setting(step, 0) != 0;
      const T half = static_cast<T>(setting(step, 0)) / 2;
      for (int c = 0; c < channels; ++c) {
        const T *x = in[c], *by = delta[c];
        T* to = out[c];
        if (step.transform == kImpulse) {
#pragma omp simd
          for (int64_t i = 0; i < n; ++i) to[i] = salted(x[i], by[i], half);
        } else if (clamped) {
#pragma omp simd
          for (int64_t i = 0; i < n; ++i) to[i] = unit(x[i] + by[i]);
        } else {
#pragma omp simd
          for (int64_t i = 0; i < n; ++i) to[i] = x[i] + by[i];
        }
      }
      return;
    }
    case kShot: {
      const Planes<const T> delta{site.delta + site.first, site.height * site.width};
      const double rate = setting(step, 0);
      for (int c = 0; c < channels; ++c)
        for (int64_t i = 0; i < n; ++i)
          out[c][i] = unit(static_cast<T>(
              poisson_quantile(rate * static_cast<double>(in[c][i]), static_cast<double>(delta[c][i])) / rate));
      return;
    }
    case kFog: {
      T field[kTile];
      fog_field(site.delta + 1, site.first, n, site.height, site.width, field);
      const T by = veil(static_cast<T>(site.whole.value[0]), d);
      for (int c = 0; c < channels; ++c) {
        const T* x = in[c];
        T* to = out[c];
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) to[i] = unit((x[i] + d * field[i]) * by);
      }
      return;
    }
    default:
      return;  // affine and blur look at more than one pixel
  }
}

// The gradients that a step hands on beside that in its pixels.
template <typename T>
struct Gradients {
  double* small;  // [dim], of a step with components of its own
  T* image;       // [channels, height, width], of one with a component for each value
  Whole whole;    // in Whole
};

// What body(x, gradient, share in delta's) makes of the gradients of each value; returns the sum of the shares.
template <typename T, typename Body>
inline T each_value_backward(Planes<const T> in, Planes<T> grad, int channels, int64_t n, Body&& body) {
  T sum = 0;
  for (int c = 0; c < channels; ++c) {
    const T* x = in[c];
    T* g = grad[c];
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) {
      T share = 0;
      g[i] = body(x[i], g[i], share);
      sum += share;
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
    T share = 0;
    const Pixel<T> p = body(Pixel<T>{r[i], g[i], b[i]}, Pixel<T>{to_r[i], to_g[i], to_b[i]}, share);
    to_r[i] = p.r;
    to_g[i] = p.g;
    to_b[i] = p.b;
    sum += share;
  }
  return sum;
}

// The way back over n pixels: `grad`, of the step's results, becomes that of its input `in`.
template <typename T>
inline void step_backward(const Site<T>& site, Planes<const T> in, Planes<T> grad, int64_t n, Gradients<T>& to) {
  const Step& step = site.step;
  const T d = site.delta[0];
  const int channels = step.channels;
  switch (step.transform) {
    case kBrightness:
      to.small[0] += each_value_backward(in, grad, channels, n, [factor = T(1) + d](T x, T g, T& d_factor) {
        const T inside = behind_unit(factor * x, g);
        d_factor = inside * x;
        return factor * inside;
      });
      return;
    case kGamma:
      to.small[0] += each_value_backward(in, grad, channels, n, [gamma = T(1) + d](T x, T g, T& d_gamma) {
        return power_backward(x, gamma, g, d_gamma);
      });
      return;
    case kContrast: {
      const T factor = T(1) + d, mean = static_cast<T>(site.whole.value[0]), other = (T(1) - factor) * mean;
      T along = 0, sum = 0;
      for (int c = 0; c < channels; ++c) {
        const T* x = in[c];
        T* g = grad[c];
#pragma omp simd reduction(+ : along, sum)
        for (int64_t i = 0; i < n; ++i) {
          const T inside = behind_unit(factor * x[i] + other, g[i]);
          along += inside * (x[i] - mean);
          sum += inside;
          g[i] = factor * inside;
        }
      }
      to.small[0] += along;
      to.whole.value[0] += static_cast<double>(T(1) - factor) * sum;
      return;
    }
    case kSaturation: {
      const T sign = static_cast<T>(setting(step, 0)), factor = T(1) + sign * d;
      const T sum = each_pixel_backward(in, grad, n, [factor](Pixel<T> x, Pixel<T> g, T& d_factor) {
        return saturated_backward(x, factor, g, d_factor);
      });
      to.small[0] += static_cast<double>(sign * sum);
      return;
    }
    case kHue: {
      const T sum = each_pixel_backward(in, grad, n, [shift = T(6) * d](Pixel<T> x, Pixel<T> g, T& d_shift) {
        return turned_backward(x, shift, g, d_shift);
      });
      to.small[0] += 6 * static_cast<double>(sum);
      return;
    }
    case kBackground: {
      const Pixel<T> colour{site.delta[0], site.delta[1], site.delta[2]};
      const T *r = in[0], *g = in[1], *b = in[2];
      T *to_r = grad[0], *to_g = grad[1], *to_b = grad[2];
      T d_r = 0, d_g = 0, d_b = 0;
      if (setting(step, 0) == kGrey) {
#pragma omp simd reduction(+ : d_r, d_g, d_b)
        for (int64_t i = 0; i < n; ++i) {
          const T rest = T(1) - r[i];
          d_r += rest * to_r[i];
          d_g += rest * to_g[i];
          d_b += rest * to_b[i];
          to_r[i] = laid_on_backward(colour, {to_r[i], to_g[i], to_b[i]});
        }
        to.small[0] += d_r;
        to.small[1] += d_g;
        to.small[2] += d_b;
        return;
      }
      const Background<T> from = background_at(site);
      T s_r = 0, s_g = 0, s_b = 0;
#pragma omp simd reduction(+ : d_r, d_g, d_b, s_r, s_g, s_b)
      for (int64_t i = 0; i < n; ++i) {
        const T raw = share_of(Pixel<T>{r[i], g[i], b[i]}, from), rest = T(1) - unit(raw), more = 2 * raw - 1;
        d_r += rest * to_r[i];
        d_g += rest * to_g[i];
        d_b += rest * to_b[i];
        const T d_share = behind_unit(raw, laid_on_backward(colour, {to_r[i], to_g[i], to_b[i]}));
        // d share / d source: it moves the numerator and |white - source|^2
        s_r += d_share * (more * from.slope.r - (r[i] - from.source.r) * from.inverse);
        s_g += d_share * (more * from.slope.g - (g[i] - from.source.g) * from.inverse);
        s_b += d_share * (more * from.slope.b - (b[i] - from.source.b) * from.inverse);
        to_r[i] = d_share * from.slope.r;
        to_g[i] = d_share * from.slope.g;
        to_b[i] = d_share * from.slope.b;
      }
      to.small[0] += d_r;
      to.small[1] += d_g;
      to.small[2] += d_b;
      to.whole.value[0] += s_r;
      to.whole.value[1] += s_g;
      to.whole.value[2] += s_b;
      return;
    }
    case kAdd:
    case kImpulse:
    case kShot: {
      const int64_t plane = site.height * site.width;
      const T* delta = site.delta + site.first;
      const bool clamped = setting(step, 0) != 0;
      const T half = static_cast<T>(setting(step, 0)) / 2;
      for (int c = 0; c < channels; ++c) {
        T *g = grad[c], *moved = to.image + site.first + c * plane;
        const T *x = in[c], *by = delta + c * plane;
        if (step.transform == kShot) {
          for (int64_t i = 0; i < n; ++i) g[i] = 0;  // counts jump
        } else if (step.transform == kImpulse) {
#pragma omp simd
          for (int64_t i = 0; i < n; ++i) g[i] = by[i] < half || by[i] >= T(1) - half ? T(0) : g[i];
        } else {
#pragma omp simd
          for (int64_t i = 0; i < n; ++i) {
            const T inside = clamped ? behind_unit(x[i] + by[i], g[i]) : g[i];
            moved[i] += inside;
            g[i] = inside;
          }
        }
      }
      return;
    }
    case kFog: {
      T field[kTile], d_field[kTile];
      fog_field(site.delta + 1, site.first, n, site.height, site.width, field);
      const T most = static_cast<T>(site.whole.value[0]), by = veil(most, d);
      const T both = most + d, inverse = both > T(0) ? T(1) / both : T(0);
      T direct = 0, through = 0;
      for (int64_t i = 0; i < n; ++i) d_field[i] = 0;
      for (int c = 0; c < channels; ++c) {
        const T* x = in[c];
        T* g = grad[c];
#pragma omp simd reduction(+ : direct, through)
        for (int64_t i = 0; i < n; ++i) {
          const T thick = x[i] + d * field[i], inside = behind_unit(thick * by, g[i]);
          direct += inside * field[i] * by;
          through += inside * thick;
          d_field[i] += inside * d * by;
          g[i] = inside * by;
        }
      }
      to.small[0] += direct - static_cast<double>(through * by * inverse);
      to.whole.value[0] += static_cast<double>(through * (T(1) - by) * inverse);
      fog_backward(d_field, site.first, n, site.height, site.width, to.small + 1);
      return;
    }
    default:
      return;
  }
}

}  // namespace robustperf::ROBUSTPERF_ISA
