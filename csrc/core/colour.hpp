// What happens to one pixel, and the way back: each transform beside its gradient.
//
// The conventions are torchvision's: contrast and saturation blend with the grey image, hue turns in HSV, results are
// clamped to [0, 1]. A clamp passes gradients on its bounds, as torch's does.
#pragma once

#include "elementary.hpp"

namespace robustperf::ROBUSTPERF_ISA {

template <typename T>
struct Pixel {
  T r, g, b;
};

// v clamped to [0, 1]: as integers, whose order is that of positive floats. Compilers make one instruction of each
// choice, where a comparison of floats, for the sake of NaN, takes several. -0 becomes 0.
ROBUSTPERF_HD inline float unit(float v) {
  return bits_as<float>(smaller(larger(bits_as<int32_t>(v), int32_t{0}), int32_t{0x3f800000}));
}
ROBUSTPERF_HD inline double unit(double v) {
  return bits_as<double>(smaller(larger(bits_as<int64_t>(v), int64_t{0}), int64_t{0x3ff0000000000000}));
}

// The gradient behind a clamp of v to [0, 1].
template <typename T>
ROBUSTPERF_HD constexpr T behind_unit(T v, T grad) {
  const T above = v < T(0) ? T(0) : grad;
  return v > T(1) ? T(0) : above;
}

constexpr double kGreyRed = 0.2989, kGreyGreen = 0.587, kGreyBlue = 0.114;

// A channel's share in the grey image of one or three.
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

// Brightness, contrast and saturation: factor times a value and 1 - factor times another (0, the image's mean grey, the
// pixel's grey); `other` is that second part.
template <typename T>
ROBUSTPERF_HD inline T blended(T x, T factor, T other) {
  return unit(factor * x + other);
}

template <typename T>
ROBUSTPERF_HD inline Pixel<T> saturated(Pixel<T> p, T factor) {
  const T other = (T(1) - factor) * grey_of(p);
  return {blended(p.r, factor, other), blended(p.g, factor, other), blended(p.b, factor, other)};
}

// The gradient in p; that in the factor is added to d_factor.
template <typename T>
ROBUSTPERF_HD inline Pixel<T> saturated_backward(Pixel<T> p, T factor, Pixel<T> grad, T& d_factor) {
  const T grey = grey_of(p), other = (T(1) - factor) * grey;
  const T r = behind_unit(factor * p.r + other, grad.r), g = behind_unit(factor * p.g + other, grad.g),
          b = behind_unit(factor * p.b + other, grad.b);
  d_factor += r * (p.r - grey) + g * (p.g - grey) + b * (p.b - grey);
  const T through_grey = (T(1) - factor) * (r + g + b);
  return {factor * r + T(kGreyRed) * through_grey, factor * g + T(kGreyGreen) * through_grey,
          factor * b + T(kGreyBlue) * through_grey};
}

// A colour as its least channel, its chroma and its hue in sixths of a turn.
template <typename T>
struct Hexcone {
  T least, chroma, inverse, difference, sixths;
  bool red, green;  // which channel is the greatest; blue, if none of the two
};

template <typename T>
ROBUSTPERF_HD inline Hexcone<T> hexcone_of(Pixel<T> p) {
  const T most = larger(larger(p.r, p.g), p.b), least = smaller(smaller(p.r, p.g), p.b), chroma = most - least;
  const T inverse = T(1) / larger(chroma, T(0x1p-126f));  // a grey's differences are 0
  const bool red = p.r == most, green = p.g == most;
  // One choice after the other: compilers make a blend of each.
  T difference = green ? p.b - p.r : p.r - p.g, sector = green ? T(2) : T(4);
  difference = red ? p.g - p.b : difference;
  sector = red ? T(0) : sector;
  return {least, chroma, inverse, difference, difference * inverse + sector, red, green};
}

// The one of a and b that is not negative, the lesser if both are: as unsigned integers negative numbers are the
// greater.
ROBUSTPERF_HD inline float least_positive(float a, float b) {
  return bits_as<float>(smaller(bits_as<uint32_t>(a), bits_as<uint32_t>(b)));
}
ROBUSTPERF_HD inline double least_positive(double a, double b) {
  return bits_as<double>(smaller(bits_as<uint64_t>(a), bits_as<uint64_t>(b)));
}

// `sixths` of a pixel in [-1, 5] and a shift in [-3, 3], brought into [0, 6).
template <typename T>
ROBUSTPERF_HD inline T wrapped(T sixths) {
  const T raised = least_positive(sixths, sixths + T(6));
  return least_positive(raised, raised - T(6));
}

// Hue turned by `shift` sixths of a turn. No sector has to be looked up: each channel is a trapezium of the hue.
template <typename T>
ROBUSTPERF_HD inline Pixel<T> turned(Pixel<T> p, T shift) {
  const Hexcone<T> c = hexcone_of(p);
  const T h = wrapped(c.sixths + shift);
  return {c.least + c.chroma * unit(magnitude(h - T(3)) - T(1)), c.least + c.chroma * unit(T(2) - magnitude(h - T(2))),
          c.least + c.chroma * unit(T(2) - magnitude(h - T(4)))};
}

// d unit(2 - |d|) / dd, and its negative is the slope of unit(|d| - 1).
template <typename T>
ROBUSTPERF_HD inline T falling(T d) {
  const T away = magnitude(d);
  T slope = d < T(0) ? T(1) : T(-1);
  slope = away > T(1) ? slope : T(0);
  return away < T(2) ? slope : T(0);
}

template <typename T>
ROBUSTPERF_HD inline Pixel<T> turned_backward(Pixel<T> p, T shift, Pixel<T> grad, T& d_shift) {
  const Hexcone<T> c = hexcone_of(p);
  const T h = wrapped(c.sixths + shift), zero = T(0);
  const T d_hue = c.chroma * (grad.g * falling(h - T(2)) + grad.b * falling(h - T(4)) - grad.r * falling(h - T(3)));
  d_shift += d_hue;
  // The hue is a difference of two channels over the chroma, beside a constant.
  const T slope = d_hue * c.inverse;
  const T d_chroma = grad.r * unit(magnitude(h - T(3)) - T(1)) + grad.g * unit(T(2) - magnitude(h - T(2))) +
                     grad.b * unit(T(2) - magnitude(h - T(4))) - slope * c.difference * c.inverse;
  const T d_least = sum_of(grad) - d_chroma;
  // For a blue one, then for a green one, then for a red one: a blend each.
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
  // A grey has no hue: it stays, and so does its gradient.
  const bool coloured = c.chroma > zero;
  return {coloured ? r + to_r : grad.r, coloured ? g + to_g : grad.g, coloured ? b + (d_least - to_r - to_g) : grad.b};
}

// x^gamma. In float from logarithm and exponential by additions and multiplications, so that it is equal everywhere.
ROBUSTPERF_HD inline float power_of(float x, float gamma) {
  const float least = 0x1p-126f;
  return x < least ? (gamma == 0.0f ? 1.0f : 0.0f) : exp_of(gamma * log_of(larger(x, least)));
}
ROBUSTPERF_HD inline double power_of(double x, double gamma) {
  return x < 0x1p-126 ? (gamma == 0.0 ? 1.0 : 0.0) : ::pow(x, gamma);
}
ROBUSTPERF_HD inline float logarithm_of(float x) { return log_of(x); }
ROBUSTPERF_HD inline double logarithm_of(double x) { return ::log(x); }

template <typename T>
ROBUSTPERF_HD inline T power_backward(T x, T gamma, T grad, T& d_gamma) {
  const T least = T(0x1p-126f), safe = larger(x, least);
  const T value = power_of(safe, gamma), inside = x < least ? T(0) : behind_unit(value, grad);
  d_gamma += inside * value * logarithm_of(safe);
  return inside * gamma * value / safe;  // 0 at x = 0, where it may be infinite
}

// A grey digit, or one on a background of a known colour, as the share of its white foreground.
template <typename T>
struct Background {
  Pixel<T> source, slope;  // share = <slope, p - source>
  T inverse;               // 1 / |white - source|^2
};

template <typename T>
ROBUSTPERF_HD constexpr Background<T> background_of(Pixel<T> source) {
  const Pixel<T> way{T(1) - source.r, T(1) - source.g, T(1) - source.b};
  const T square = way.r * way.r + way.g * way.g + way.b * way.b;
  const T inverse = square > T(0) ? T(1) / square : T(0);  // on white nothing can be told apart
  return {source, {way.r * inverse, way.g * inverse, way.b * inverse}, inverse};
}

template <typename T>
ROBUSTPERF_HD constexpr T share_of(Pixel<T> p, Background<T> from) {
  return from.slope.r * (p.r - from.source.r) + from.slope.g * (p.g - from.source.g) +
         from.slope.b * (p.b - from.source.b);
}

template <typename T>
ROBUSTPERF_HD constexpr Pixel<T> laid_on(T share, Pixel<T> colour) {
  return {share + (T(1) - share) * colour.r, share + (T(1) - share) * colour.g, share + (T(1) - share) * colour.b};
}

// The gradient in the share; that in the colour is (1 - share) grad.
template <typename T>
ROBUSTPERF_HD constexpr T laid_on_backward(Pixel<T> colour, Pixel<T> grad) {
  return grad.r * (T(1) - colour.r) + grad.g * (T(1) - colour.g) + grad.b * (T(1) - colour.b);
}

// Fog: a veil of strength * field over x, brought back into range by the greatest value of the image.
template <typename T>
ROBUSTPERF_HD constexpr T veil(T most, T strength) {
  return most + strength > T(0) ? most / (most + strength) : T(1);
}

}  // namespace robustperf::ROBUSTPERF_ISA
