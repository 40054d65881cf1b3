// The transforms of one pixel, each with its gradient.
//
// The conventions are torchvision's: contrast and saturation interpolate with the grey image, hue shifts in HSV,
// results are clamped to [0, 1]. A clamp passes the gradient on its bounds, as torch's does.
#pragma once

#include "elementary.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

template <typename T>
struct Pixel {
  T r, g, b;
};

// v clamped to [0, 1], compared as integers, which are ordered like positive floats: one instruction each, where a
// comparison of floats takes several because of NaN. -0 becomes 0.
ROBUSTPERF_HD inline float clamp01(float v) {
  return bits_as<float>(min_of(max_of(bits_as<int32_t>(v), int32_t{0}), int32_t{0x3f800000}));
}
ROBUSTPERF_HD inline double clamp01(double v) {
  return bits_as<double>(min_of(max_of(bits_as<int64_t>(v), int64_t{0}), int64_t{0x3ff0000000000000}));
}

// The gradient in v, from that in clamp01(v).
template <typename T>
ROBUSTPERF_HD constexpr T clamp_backward(T v, T grad) {
  const T above = v < T(0) ? T(0) : grad;
  return v > T(1) ? T(0) : above;
}

constexpr double kGreyRed = 0.2989, kGreyGreen = 0.587, kGreyBlue = 0.114;

// A channel's weight in the grey image, of one or three channels.
ROBUSTPERF_HD constexpr double grey_weight(int channel, int channels) {
  return channels != 3 ? 1.0 : channel == 0 ? kGreyRed : channel == 1 ? kGreyGreen : kGreyBlue;
}

template <typename T>
ROBUSTPERF_HD constexpr T grey_of(Pixel<T> p) {
  return T(kGreyRed) * p.r + T(kGreyGreen) * p.g + T(kGreyBlue) * p.b;
}

template <typename T>
ROBUSTPERF_HD constexpr T sum_of(Pixel<T> p) {
  return p.r + p.g + p.b;
}

// Brightness, contrast and saturation: factor times a value plus 1 - factor times another (0, the image's mean grey,
// the pixel's grey). `offset` is the second term.
template <typename T>
ROBUSTPERF_HD inline T scale_and_clamp(T x, T factor, T offset) {
  return clamp01(factor * x + offset);
}

template <typename T>
ROBUSTPERF_HD inline Pixel<T> saturated(Pixel<T> p, T factor) {
  const T other = (T(1) - factor) * grey_of(p);
  return {scale_and_clamp(p.r, factor, other), scale_and_clamp(p.g, factor, other),
          scale_and_clamp(p.b, factor, other)};
}

// The gradient in p; that in the factor is added to d_factor.
template <typename T>
ROBUSTPERF_HD inline Pixel<T> saturated_backward(Pixel<T> p, T factor, Pixel<T> grad, T& d_factor) {
  const T grey = grey_of(p), other = (T(1) - factor) * grey;
  const T r = clamp_backward(factor * p.r + other, grad.r), g = clamp_backward(factor * p.g + other, grad.g),
          b = clamp_backward(factor * p.b + other, grad.b);
  d_factor += r * (p.r - grey) + g * (p.g - grey) + b * (p.b - grey);
  const T through_grey = (T(1) - factor) * (r + g + b);
  return {factor * r + T(kGreyRed) * through_grey, factor * g + T(kGreyGreen) * through_grey,
          factor * b + T(kGreyBlue) * through_grey};
}

// A colour as its minimum, its chroma and its hue in sixths of a turn.
template <typename T>
struct Hexcone {
  T least, chroma, inverse, difference, sixths;
  bool red, green;  // the channel that is the maximum; blue if neither
};

template <typename T>
ROBUSTPERF_HD inline Hexcone<T> hexcone_of(Pixel<T> p) {
  const T most = max_of(max_of(p.r, p.g), p.b), least = min_of(min_of(p.r, p.g), p.b), chroma = most - least;
  const T inverse = T(1) / max_of(chroma, T(0x1p-126f));  // the differences of a grey pixel are 0
  const bool red = p.r == most, green = p.g == most;
  // One choice after the other: compilers turn each into a vector select.
  T difference = green ? p.b - p.r : p.r - p.g, sector = green ? T(2) : T(4);
  difference = red ? p.g - p.b : difference;
  sector = red ? T(0) : sector;
  return {least, chroma, inverse, difference, difference * inverse + sector, red, green};
}

// The one of a and b that is not negative, or the smaller if neither is: as unsigned integers negative floats are the
// larger ones.
ROBUSTPERF_HD inline float least_positive(float a, float b) {
  return bits_as<float>(min_of(bits_as<uint32_t>(a), bits_as<uint32_t>(b)));
}
ROBUSTPERF_HD inline double least_positive(double a, double b) {
  return bits_as<double>(min_of(bits_as<uint64_t>(a), bits_as<uint64_t>(b)));
}

// The sum of a hue in [-1, 5] sixths and a shift in [-3, 3], wrapped into [0, 6).
template <typename T>
ROBUSTPERF_HD inline T wrap_hue(T sixths) {
  const T raised = least_positive(sixths, sixths + T(6));
  return least_positive(raised, raised - T(6));
}

// Hue shifted by `shift` sixths of a turn. Each channel is a trapezoid of the hue, so no sector is selected.
template <typename T>
ROBUSTPERF_HD inline Pixel<T> hue_shifted(Pixel<T> p, T shift) {
  const Hexcone<T> c = hexcone_of(p);
  const T h = wrap_hue(c.sixths + shift);
  return {c.least + c.chroma * clamp01(abs_of(h - T(3)) - T(1)), c.least + c.chroma * clamp01(T(2) - abs_of(h - T(2))),
          c.least + c.chroma * clamp01(T(2) - abs_of(h - T(4)))};
}

// d clamp01(2 - |d|) / dd; its negative is the slope of clamp01(|d| - 1).
template <typename T>
ROBUSTPERF_HD inline T hue_slope(T d) {
  const T away = abs_of(d);
  T slope = d < T(0) ? T(1) : T(-1);
  slope = away > T(1) ? slope : T(0);
  return away < T(2) ? slope : T(0);
}

template <typename T>
ROBUSTPERF_HD inline Pixel<T> hue_shift_backward(Pixel<T> p, T shift, Pixel<T> grad, T& d_shift) {
  const Hexcone<T> c = hexcone_of(p);
  const T h = wrap_hue(c.sixths + shift), zero = T(0);
  const T d_hue =
      c.chroma * (grad.g * hue_slope(h - T(2)) + grad.b * hue_slope(h - T(4)) - grad.r * hue_slope(h - T(3)));
  d_shift += d_hue;
  // The hue is a difference of two channels over the chroma, plus a constant.
  const T slope = d_hue * c.inverse;
  const T d_chroma = grad.r * clamp01(abs_of(h - T(3)) - T(1)) + grad.g * clamp01(T(2) - abs_of(h - T(2))) +
                     grad.b * clamp01(T(2) - abs_of(h - T(4))) - slope * c.difference * c.inverse;
  const T d_least = sum_of(grad) - d_chroma;
  // For a blue maximum, then for green, then for red: a vector select each.
  T r = slope, g = -slope, b = d_chroma;
  r = c.green ? -slope : r;
  g = c.green ? d_chroma : g;
  b = c.green ? slope : b;
  r = c.red ? d_chroma : r;
  g = c.red ? slope : g;
  b = c.red ? -slope : b;
  const T to_r = p.r == c.least ? d_least : zero;
  T to_g = p.g == c.least ? d_least : zero;
  to_g = p.r == c.least ? zero : to_g;
  // A grey pixel has no hue: it does not change, nor does its gradient.
  const bool coloured = c.chroma > zero;
  return {coloured ? r + to_r : grad.r, coloured ? g + to_g : grad.g, coloured ? b + (d_least - to_r - to_g) : grad.b};
}

// x^gamma. In float from log_of and exp_of, for the same bits everywhere.
ROBUSTPERF_HD inline float power_of(float x, float gamma) {
  const float least = 0x1p-126f;
  return x < least ? (gamma == 0.0f ? 1.0f : 0.0f) : exp_of(gamma * log_of(max_of(x, least)));
}
ROBUSTPERF_HD inline double power_of(double x, double gamma) {
  return x < 0x1p-126 ? (gamma == 0.0 ? 1.0 : 0.0) : ::pow(x, gamma);
}
ROBUSTPERF_HD inline float natural_log_of(float x) { return log_of(x); }
ROBUSTPERF_HD inline double natural_log_of(double x) { return ::log(x); }

template <typename T>
ROBUSTPERF_HD inline T power_backward(T x, T gamma, T grad, T& d_gamma) {
  const T least = T(0x1p-126f), safe = max_of(x, least);
  const T value = power_of(safe, gamma), inside = x < least ? T(0) : clamp_backward(value, grad);
  d_gamma += inside * value * natural_log_of(safe);
  return inside * gamma * value / safe;  // 0 at x = 0, where it may be infinite
}

// A background of a known colour. An image on it is white with the opacity alpha over that colour.
template <typename T>
struct Background {
  Pixel<T> source, slope;  // alpha = <slope, p - source>
  T inverse;               // 1 / |white - source|^2
};

template <typename T>
ROBUSTPERF_HD constexpr Background<T> background_of(Pixel<T> source) {
  const Pixel<T> to_white{T(1) - source.r, T(1) - source.g, T(1) - source.b};
  const T square = to_white.r * to_white.r + to_white.g * to_white.g + to_white.b * to_white.b;
  const T inverse = square > T(0) ? T(1) / square : T(0);  // on white the foreground cannot be distinguished
  return {source, {to_white.r * inverse, to_white.g * inverse, to_white.b * inverse}, inverse};
}

template <typename T>
ROBUSTPERF_HD constexpr T alpha_of(Pixel<T> p, Background<T> from) {
  return from.slope.r * (p.r - from.source.r) + from.slope.g * (p.g - from.source.g) +
         from.slope.b * (p.b - from.source.b);
}

template <typename T>
ROBUSTPERF_HD constexpr Pixel<T> blend(T alpha, Pixel<T> colour) {
  return {alpha + (T(1) - alpha) * colour.r, alpha + (T(1) - alpha) * colour.g, alpha + (T(1) - alpha) * colour.b};
}

// The gradient in alpha; that in the colour is (1 - alpha) grad.
template <typename T>
ROBUSTPERF_HD constexpr T blend_backward(Pixel<T> colour, Pixel<T> grad) {
  return grad.r * (T(1) - colour.r) + grad.g * (T(1) - colour.g) + grad.b * (T(1) - colour.b);
}

// Fog is (x + strength * field) * attenuation, which keeps the image's maximum where the field is 1.
template <typename T>
ROBUSTPERF_HD constexpr T attenuation(T maximum, T strength) {
  return maximum + strength > T(0) ? maximum / (maximum + strength) : T(1);
}

}  // namespace robustperf::ROBUSTPERF_TARGET
