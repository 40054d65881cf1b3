// Affine warps: the source position of each output pixel, and its gradient in delta.
#pragma once

#include "program.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

enum AffineParameter { kAngle, kShiftX, kShiftY, kScale, kShearX, kShearY, kAffineParameters };

// u = xx (x - mid_x) + xy (y - mid_y) + centre_x, and v likewise: from output pixel (x, y) to a position in the input.
// Pixels are one apart, y points down.
struct Warp {
  double xx, xy, yx, yy;
  double mid_x, mid_y, centre_x, centre_y;

  ROBUSTPERF_HD double u0() const { return centre_x - xx * mid_x - xy * mid_y; }  // of pixel (0, 0)
  ROBUSTPERF_HD double v0() const { return centre_y - yx * mid_x - yy * mid_y; }
};

constexpr double kDegree = 3.14159265358979323846 / 180;

struct WarpParameters {
  double cosine, sine, zoom, shear_x, shear_y;  // shears as tangents
  double values[kAffineParameters];
};

template <typename T>
ROBUSTPERF_HD inline WarpParameters warp_parameters_of(const Step& step, const T* delta) {
  WarpParameters p{};
  const int64_t mask = affine_mask(step);
  for (int i = 0, next = 0; i < kAffineParameters; ++i)
    if (mask >> i & 1) p.values[i] = static_cast<double>(delta[next++]);
  p.cosine = ::cos(p.values[kAngle] * kDegree);
  p.sine = ::sin(p.values[kAngle] * kDegree);
  p.zoom = 1 + p.values[kScale];
  p.shear_x = ::tan(p.values[kShearX] * kDegree);
  p.shear_y = ::tan(p.values[kShearY] * kDegree);
  return p;
}

// The image is scaled, sheared (x by y, then y by x), rotated counter-clockwise about its centre and translated; this
// is the inverse map.
ROBUSTPERF_HD inline Warp warp_of(const WarpParameters& p, int64_t height, int64_t width) {
  const double shears = 1 + p.shear_x * p.shear_y;
  Warp w{};
  w.xx = (shears * p.cosine - p.shear_x * p.sine) / p.zoom;
  w.xy = (-shears * p.sine - p.shear_x * p.cosine) / p.zoom;
  w.yx = (p.sine - p.shear_y * p.cosine) / p.zoom;
  w.yy = (p.cosine + p.shear_y * p.sine) / p.zoom;
  w.centre_x = (width - 1) * 0.5;
  w.centre_y = (height - 1) * 0.5;
  w.mid_x = w.centre_x + p.values[kShiftX] * width;
  w.mid_y = w.centre_y + p.values[kShiftY] * height;
  return w;
}

// A pixel's source: `right` and `down` of pixel (x, y) by a fraction each. Outside the image (x, y) lies in a border of
// zeros.
template <typename T>
struct SourcePosition {
  int x, y;
  T right, down;
  bool unclamped_x, unclamped_y;  // a clamped position does not depend on delta
};

template <typename T>
ROBUSTPERF_HD inline SourcePosition<T> source_position_of(const Warp& w, bool border, int64_t y, int64_t x,
                                                          int64_t height, int64_t width) {
  const T low = border ? T(0) : T(-1), high_x = static_cast<T>(border ? width - 1 : width),
          high_y = static_cast<T>(border ? height - 1 : height);
  const T u = static_cast<T>(w.u0() + w.xy * y) + static_cast<T>(w.xx) * static_cast<T>(x),
          v = static_cast<T>(w.v0() + w.yy * y) + static_cast<T>(w.yx) * static_cast<T>(x);
  // written so that NaN becomes the low end
  const T cu = min_of(u > low ? u : low, high_x) + T(1), cv = min_of(v > low ? v : low, high_y) + T(1);
  const int iu = static_cast<int>(cu), iv = static_cast<int>(cv);
  return {
      iu - 1, iv - 1, cu - static_cast<T>(iu), cv - static_cast<T>(iv), low < u && u < high_x, low < v && v < high_y};
}

// The gradients in u and v summed over the pixels, plain and times x and y.
struct WarpGradient {
  double u, ux, uy, v, vx, vy;
};

// Adds the gradient in delta to d_delta.
ROBUSTPERF_HD inline void warp_backward(const Step& step, const WarpParameters& p, const Warp& w, const WarpGradient& g,
                                        int64_t height, int64_t width, double* d_delta) {
  const double d_xx = g.ux - w.mid_x * g.u, d_xy = g.uy - w.mid_y * g.u, d_yx = g.vx - w.mid_x * g.v,
               d_yy = g.vy - w.mid_y * g.v;
  double d[kAffineParameters];
  d[kAngle] = kDegree * (d_xx * w.xy - d_xy * w.xx + d_yx * w.yy - d_yy * w.yx);
  d[kShiftX] = -static_cast<double>(width) * (w.xx * g.u + w.yx * g.v);
  d[kShiftY] = -static_cast<double>(height) * (w.xy * g.u + w.yy * g.v);
  d[kScale] = -(d_xx * w.xx + d_xy * w.xy + d_yx * w.yx + d_yy * w.yy) / p.zoom;
  d[kShearX] = kDegree * (1 + p.shear_x * p.shear_x) / p.zoom *
               (d_xx * (p.shear_y * p.cosine - p.sine) - d_xy * (p.shear_y * p.sine + p.cosine));
  d[kShearY] = kDegree * (1 + p.shear_y * p.shear_y) / p.zoom *
               (d_xx * p.shear_x * p.cosine - d_xy * p.shear_x * p.sine - d_yx * p.cosine + d_yy * p.sine);
  const int64_t mask = affine_mask(step);
  for (int i = 0, next = 0; i < kAffineParameters; ++i)
    if (mask >> i & 1) d_delta[next++] += d[i];
}

}  // namespace robustperf::ROBUSTPERF_TARGET
