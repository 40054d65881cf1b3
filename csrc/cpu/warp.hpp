// Bilinear warps. The image is first padded with a border of zeros and its channels interleaved in groups of four. One
// load then gets four channels of a neighbour, and a position outside is clamped into the border without a branch.
#pragma once

#include "../core/affine.hpp"
#include "steps.hpp"
#include "transpose4.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

// The padded layout: one row and column of zeros before, two after (a position on the border has a right neighbour
// too). A cell is a pixel of four interleaved channels.
struct Padded {
  int64_t height, width;
  int64_t row() const { return width + 3; }
  int64_t cells() const { return (height + 3) * row(); }
  int64_t size(int64_t channels) const { return (channels + 3) / 4 * 4 * cells(); }  // in numbers
};

template <typename T>
inline void pad_image(const T* image, int channels, Padded size, T* padded) {
  const int64_t plane = size.height * size.width, row = 4 * size.row();
  for (int first = 0; first < channels; first += 4, padded += 4 * size.cells()) {
    const int count = min_of(channels - first, 4);
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
          const Vector4<T> cell{from[x], from[x + plane], from[x + 2 * plane], T(0)};
          store4(to + 4 * x, cell);
        }
      } else {
        for (int64_t x = 0; x < size.width; ++x)
          for (int c = 0; c < 4; ++c) to[4 * x + c] = c < count ? from[x + c * plane] : T(0);
      }
    }
  }
}

// The source positions of a tile's pixels: the cell above and to the left, and the fractions right and down of it.
template <typename T>
struct SourcePositions {
  int32_t cell[kTile + 4];
  T right[kTile + 4], down[kTile + 4];
  bool unclamped_x[kTile], unclamped_y[kTile];  // a clamped position does not depend on delta
};

// Splits the n pixels from `first` into runs within a row and calls body(row, the run's column, its place in the n
// pixels, its length).
template <typename Body>
inline void each_row(int64_t first, int64_t n, int64_t width, Body&& body) {
  for (int64_t done = 0; done < n;) {
    const int64_t y = (first + done) / width, x = (first + done) % width, count = min_of(n - done, width - x);
    body(y, x, done, count);
    done += count;
  }
}

template <bool kBackward, typename T>
inline void find_source_positions(const Warp& w, bool border, Padded size, int64_t first, int64_t n,
                                  SourcePositions<T>& positions) {
  const T low = border ? T(0) : T(-1), high_x = static_cast<T>(border ? size.width - 1 : size.width),
          high_y = static_cast<T>(border ? size.height - 1 : size.height);
  const T xx = static_cast<T>(w.xx), yx = static_cast<T>(w.yx);
  const int32_t row = static_cast<int32_t>(size.row());
  each_row(first, n, size.width, [&](int64_t y, int64_t x, int64_t done, int64_t count) {
    const T u0 = static_cast<T>(w.u0() + w.xy * y), v0 = static_cast<T>(w.v0() + w.yy * y);
    const int32_t column = static_cast<int32_t>(x);
    int32_t* cell = positions.cell + done;
    T *right = positions.right + done, *down = positions.down + done;
    bool *unclamped_x = positions.unclamped_x + done, *unclamped_y = positions.unclamped_y + done;
#pragma omp simd
    for (int32_t i = 0; i < static_cast<int32_t>(count); ++i) {
      const T u = u0 + xx * static_cast<T>(column + i), v = v0 + yx * static_cast<T>(column + i);
      // written so that NaN becomes the low end
      const T cu = min_of(u > low ? u : low, high_x) + T(1), cv = min_of(v > low ? v : low, high_y) + T(1);
      const int32_t iu = static_cast<int32_t>(cu), iv = static_cast<int32_t>(cv);
      cell[i] = iv * row + iu;
      right[i] = cu - static_cast<T>(iu);
      down[i] = cv - static_cast<T>(iv);
      if (kBackward) {
        unclamped_x[i] = u > low && u < high_x;
        unclamped_y[i] = v > low && v < high_y;
      }
    }
  });
}

// The n warped pixels from `first`, into `out`.
template <typename T>
inline void warp_tile(const Warp& w, bool border, const T* padded, int channels, Padded size, int64_t first, int64_t n,
                      Planes<T> out) {
  SourcePositions<T> positions;
  find_source_positions<false>(w, border, size, first, n, positions);
  for (int64_t i = n; i < (n + 3) / 4 * 4; ++i) positions.cell[i] = 0, positions.right[i] = positions.down[i] = 0;
  const int64_t row = 4 * size.row();
  for (int c = 0; c < channels; c += 4, padded += 4 * size.cells()) {
    const int count = min_of(channels - c, 4);
    for (int64_t i = 0; i < n; i += 4) {
      Vector4<T> q[4];
      for (int l = 0; l < 4; ++l) {
        const T* at = padded + int64_t{4} * positions.cell[i + l];
        Vector4<T> a, b, p, s;
        load4(a, at);
        load4(b, at + 4);
        load4(p, at + row);
        load4(s, at + row + 4);
        const Vector4<T> upper = a + positions.right[i + l] * (b - a), lower = p + positions.right[i + l] * (s - p);
        q[l] = upper + positions.down[i + l] * (lower - upper);
      }
      transpose<T>(q);
      for (int l = 0; l < count; ++l) {
        if (i + 4 <= n)
          store4(out[c + l] + i, q[l]);
        else
          for (int64_t rest = i; rest < n; ++rest) out[c + l][rest] = q[l][rest - i];
      }
    }
  }
}

// The backward pass of n pixels with the gradient `grad`: adds to the padded image's gradient and to the sums for
// delta.
template <typename T>
inline void warp_tile_backward(const Warp& w, bool border, const T* padded, int channels, Padded size, int64_t first,
                               int64_t n, Planes<const T> grad, T* padded_grad, WarpGradient& sums) {
  SourcePositions<T> positions;
  find_source_positions<true>(w, border, size, first, n, positions);
  const int64_t row = 4 * size.row();
  T d_u[kTile] = {}, d_v[kTile] = {};
  for (int c = 0; c < channels; c += 4, padded += 4 * size.cells(), padded_grad += 4 * size.cells()) {
    const int count = min_of(channels - c, 4);
    for (int64_t i = 0; i < n; ++i) {
      const T *at = padded + int64_t{4} * positions.cell[i], right = positions.right[i], down = positions.down[i];
      T* to = padded_grad + int64_t{4} * positions.cell[i];
      Vector4<T> g{}, a, b, p, s;
      for (int l = 0; l < count; ++l) g[l] = grad[c + l][i];
      load4(a, at);
      load4(b, at + 4);
      load4(p, at + row);
      load4(s, at + row + 4);
      const Vector4<T> upper = a + right * (b - a), lower = p + right * (s - p);
      const Vector4<T> by_u = g * ((b - a) + down * ((s - p) - (b - a))), by_v = g * (lower - upper);
      d_u[i] += (by_u[0] + by_u[1]) + (by_u[2] + by_u[3]);
      d_v[i] += (by_v[0] + by_v[1]) + (by_v[2] + by_v[3]);
      const Vector4<T> below = down * g, above = g - below;
      Vector4<T> old;
      load4(old, to);
      store4(to, old + (above - right * above));
      load4(old, to + 4);
      store4(to + 4, old + right * above);
      load4(old, to + row);
      store4(to + row, old + (below - right * below));
      load4(old, to + row + 4);
      store4(to + row + 4, old + right * below);
    }
  }
  each_row(first, n, size.width, [&](int64_t y, int64_t x, int64_t done, int64_t count) {
    double u = 0, ux = 0, v = 0, vx = 0;
    for (int64_t i = 0; i < count; ++i) {
      const double du = positions.unclamped_x[done + i] ? d_u[done + i] : T(0),
                   dv = positions.unclamped_y[done + i] ? d_v[done + i] : T(0);
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

// The inverse of pad_image.
template <typename T>
inline void unpad(const T* padded, int channels, Padded size, T* image) {
  const int64_t row = 4 * size.row();
  for (int c = 0; c < channels; ++c) {
    const T* from = padded + c / 4 * 4 * size.cells() + row + 4 + c % 4;
    for (int64_t y = 0; y < size.height; ++y)
      for (int64_t x = 0; x < size.width; ++x) *image++ = from[y * row + 4 * x];
  }
}

}  // namespace robustperf::ROBUSTPERF_TARGET
