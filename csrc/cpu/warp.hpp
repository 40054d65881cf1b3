// Bilinear warps. The image is first laid out with its channels side by side, four to a quad, in a border of zeros: a
// neighbour is then one load for all channels, and a place outside is clamped into the border instead of looked for.
#pragma once

#include "../core/affine.hpp"
#include "quads.hpp"
#include "tiles.hpp"

namespace robustperf::ROBUSTPERF_ISA {

// The padded layout: one row and column of zeros before, two behind (a place on the border has a right neighbour too).
struct Padded {
  int64_t height, width;
  int64_t row() const { return width + 3; }
  int64_t quads() const { return (height + 3) * row(); }  // of four channels
};

template <typename T>
inline void lay_out(const T* image, int channels, Padded size, T* padded) {
  const int64_t plane = size.height * size.width, row = 4 * size.row();
  for (int first = 0; first < channels; first += 4, padded += 4 * size.quads()) {
    const int count = smaller(channels - first, 4);
    memset(padded, 0, row * sizeof(T));
    memset(padded + (size.height + 1) * row, 0, 2 * row * sizeof(T));
    for (int64_t y = 0; y < size.height; ++y) {
      T* to = padded + (y + 1) * row;
      const T* from = image + first * plane + y * size.width;
      memset(to, 0, 4 * sizeof(T));
      memset(to + 4 * (size.width + 1), 0, 8 * sizeof(T));
      to += 4;
      if (count == 3) {
        for (int64_t x = 0; x < size.width; ++x) {
          const typename QuadOf<T>::Quad quad{from[x], from[x + plane], from[x + 2 * plane], T(0)};
          put(to + 4 * x, quad);
        }
      } else {
        for (int64_t x = 0; x < size.width; ++x)
          for (int c = 0; c < 4; ++c) to[4 * x + c] = c < count ? from[x + c * plane] : T(0);
      }
    }
  }
}

// Where the pixels of a tile come from: the quad up left of the place, and how far right and down of it.
template <typename T>
struct Places {
  int32_t quad[kTile + 4];
  T right[kTile + 4], down[kTile + 4];
  bool moves_x[kTile], moves_y[kTile];  // whether the place follows delta, or is clamped
};

// Calls body(row y, first pixel's column, first, count) for each stretch of a row within n pixels from `first`.
template <typename Body>
inline void each_row(int64_t first, int64_t n, int64_t width, Body&& body) {
  for (int64_t done = 0; done < n;) {
    const int64_t y = (first + done) / width, x = (first + done) % width, count = smaller(n - done, width - x);
    body(y, x, done, count);
    done += count;
  }
}

template <bool kWay, typename T>
inline void find_places(const Warp& w, bool border, Padded size, int64_t first, int64_t n, Places<T>& places) {
  const T low = border ? T(0) : T(-1), most_x = static_cast<T>(border ? size.width - 1 : size.width),
          most_y = static_cast<T>(border ? size.height - 1 : size.height);
  const T xx = static_cast<T>(w.xx), yx = static_cast<T>(w.yx);
  const int32_t row = static_cast<int32_t>(size.row());
  each_row(first, n, size.width, [&](int64_t y, int64_t x, int64_t done, int64_t count) {
    const T u0 = static_cast<T>(w.u0() + w.xy * y), v0 = static_cast<T>(w.v0() + w.yy * y);
    const int32_t column = static_cast<int32_t>(x);
    int32_t* quad = places.quad + done;
    T *right = places.right + done, *down = places.down + done;
    bool *moves_x = places.moves_x + done, *moves_y = places.moves_y + done;
#pragma omp simd
    for (int32_t i = 0; i < static_cast<int32_t>(count); ++i) {
      const T u = u0 + xx * static_cast<T>(column + i), v = v0 + yx * static_cast<T>(column + i);
      // so written that a NaN ends up at the low end
      const T cu = smaller(u > low ? u : low, most_x) + T(1), cv = smaller(v > low ? v : low, most_y) + T(1);
      const int32_t iu = static_cast<int32_t>(cu), iv = static_cast<int32_t>(cv);
      quad[i] = iv * row + iu;
      right[i] = cu - static_cast<T>(iu);
      down[i] = cv - static_cast<T>(iv);
      if (kWay) {
        moves_x[i] = u > low && u < most_x;
        moves_y[i] = v > low && v < most_y;
      }
    }
  });
}

// n warped pixels from `first` into `out`.
template <typename T>
inline void warp_tile(const Warp& w, bool border, const T* padded, int channels, Padded size, int64_t first, int64_t n,
                      Planes<T> out) {
  using Quad = typename QuadOf<T>::Quad;
  Places<T> places;
  find_places<false>(w, border, size, first, n, places);
  for (int64_t i = n; i < (n + 3) / 4 * 4; ++i) places.quad[i] = 0, places.right[i] = places.down[i] = 0;
  const int64_t row = 4 * size.row();
  for (int c = 0; c < channels; c += 4, padded += 4 * size.quads()) {
    const int count = smaller(channels - c, 4);
    for (int64_t i = 0; i < n; i += 4) {
      Quad q[4];
      for (int l = 0; l < 4; ++l) {
        const T* at = padded + int64_t{4} * places.quad[i + l];
        Quad a, b, p, s;
        take(a, at);
        take(b, at + 4);
        take(p, at + row);
        take(s, at + row + 4);
        const Quad upper = a + places.right[i + l] * (b - a), lower = p + places.right[i + l] * (s - p);
        q[l] = upper + places.down[i + l] * (lower - upper);
      }
      transpose<T>(q);
      for (int l = 0; l < count; ++l) {
        if (i + 4 <= n)
          put(out[c + l] + i, q[l]);
        else
          for (int64_t rest = i; rest < n; ++rest) out[c + l][rest] = q[l][rest - i];
      }
    }
  }
}

// The way back of n pixels with the gradient `grad`: into the padded image's gradient and into the sums for delta.
template <typename T>
inline void warp_tile_backward(const Warp& w, bool border, const T* padded, int channels, Padded size, int64_t first,
                               int64_t n, Planes<const T> grad, T* padded_grad, WarpGradient& sums) {
  using Quad = typename QuadOf<T>::Quad;
  Places<T> places;
  find_places<true>(w, border, size, first, n, places);
  const int64_t row = 4 * size.row();
  T d_u[kTile] = {}, d_v[kTile] = {};
  for (int c = 0; c < channels; c += 4, padded += 4 * size.quads(), padded_grad += 4 * size.quads()) {
    const int count = smaller(channels - c, 4);
    for (int64_t i = 0; i < n; ++i) {
      const T *at = padded + int64_t{4} * places.quad[i], right = places.right[i], down = places.down[i];
      T* to = padded_grad + int64_t{4} * places.quad[i];
      Quad g{}, a, b, p, s;
      for (int l = 0; l < count; ++l) g[l] = grad[c + l][i];
      take(a, at);
      take(b, at + 4);
      take(p, at + row);
      take(s, at + row + 4);
      const Quad upper = a + right * (b - a), lower = p + right * (s - p);
      const Quad by_u = g * ((b - a) + down * ((s - p) - (b - a))), by_v = g * (lower - upper);
      d_u[i] += (by_u[0] + by_u[1]) + (by_u[2] + by_u[3]);
      d_v[i] += (by_v[0] + by_v[1]) + (by_v[2] + by_v[3]);
      const Quad below = down * g, above = g - below;
      Quad old;
      take(old, to);
      put(to, old + (above - right * above));
      take(old, to + 4);
      put(to + 4, old + right * above);
      take(old, to + row);
      put(to + row, old + (below - right * below));
      take(old, to + row + 4);
      put(to + row + 4, old + right * below);
    }
  }
  each_row(first, n, size.width, [&](int64_t y, int64_t x, int64_t done, int64_t count) {
    double u = 0, ux = 0, v = 0, vx = 0;
    for (int64_t i = 0; i < count; ++i) {
      const double du = places.moves_x[done + i] ? d_u[done + i] : T(0),
                   dv = places.moves_y[done + i] ? d_v[done + i] : T(0);
      u += du;
      ux += du * (x + i);
      v += dv;
      vx += dv * (x + i);
    }
    sums.u += u;
    sums.ux += ux;
    sums.uy += u * y;
    sums.v += v;
    sums.vx += vx;
    sums.vy += v * y;
  });
}

// The gradient of the image from that of its padded layout.
template <typename T>
inline void take_in(const T* padded, int channels, Padded size, T* image) {
  const int64_t row = 4 * size.row();
  for (int c = 0; c < channels; ++c) {
    const T* from = padded + c / 4 * 4 * size.quads() + row + 4 + c % 4;
    for (int64_t y = 0; y < size.height; ++y)
      for (int64_t x = 0; x < size.width; ++x) *image++ = from[y * row + 4 * x];
  }
}

}  // namespace robustperf::ROBUSTPERF_ISA
