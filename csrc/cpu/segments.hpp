// A program in segments: stretches of steps that run tile by tile without a look at the rest of the image. A segment
// begins where a step wants to know the whole image first (contrast, fog, a background's corner) or looks at more than
// one pixel (a warp, blur).
#pragma once

#include "blur.hpp"
#include "lanes.hpp"
#include "sampling.hpp"
#include "warp.hpp"

namespace robustperf::ROBUSTPERF_ISA {

inline bool begins_segment(const Step& step) {
  return wants_whole(step) || step.transform == kAffine || step.transform == kBlur;
}

// The segment that begins with step `first` ends before the step returned.
template <typename T>
inline int64_t segment_end(const NuisanceArgs<T>& args, int64_t first) {
  if (first >= args.count) return args.count;
  int64_t end = first + 1;
  if (args.steps[first].transform == kBlur) return end;
  while (end < args.count && !begins_segment(args.steps[end])) ++end;
  return end;
}

// Sums of the channels' values, in sixteen lanes whatever the instruction set, for the same bits.
template <typename T>
inline double sum_of_run(const T* x, int64_t n) {
  typename Full<T>::Register lanes[kRegistersOf<T>] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int r = 0; r < kRegistersOf<T>; ++r) lanes[r] += read(x + i + r * kWidthOf<T>);
  double sum = add_up(lanes);
  for (; i < n; ++i) sum += x[i];
  return sum;
}

// What `step` wants to know of the image, gathered tile by tile.
template <typename T>
inline void look_at(const Step& step, Planes<const T> tile, int64_t first, int64_t n, int64_t pixels, Whole& whole) {
  if (step.transform == kContrast) {
    for (int c = 0; c < step.channels; ++c)
      whole.value[0] += grey_weight(c, step.channels) * sum_of_run(tile[c], n) / pixels;
  } else if (step.transform == kFog) {
    T most = first == 0 ? tile[0][0] : static_cast<T>(whole.value[0]);
    for (int c = 0; c < step.channels; ++c) {
      const T* x = tile[c];
#pragma omp simd reduction(max : most)
      for (int64_t i = 0; i < n; ++i) most = larger(most, x[i]);
    }
    whole.value[0] = most;
  } else if (first == 0) {
    for (int c = 0; c < 3; ++c) whole.value[c] = tile[c][0];
  }
}

template <typename T>
inline Whole look_at_image(const Step& step, const T* image, int64_t pixels) {
  Whole whole{};
  for (int64_t first = 0; first < pixels; first += kTile)
    look_at(step, Planes<const T>{image + first, pixels}, first, smaller(kTile, pixels - first), pixels, whole);
  return whole;
}

// One thread's place to work.
template <typename T>
struct Scratch {
  T *padded, *padded_grad, *image, *tiles, *delta, *inputs, *grads;

  Scratch(const NuisanceArgs<T>& args, int64_t thread) {
    T* base = args.scratch + thread * args.layout.total;
    padded = base + args.layout.padded;
    padded_grad = base + args.layout.padded_grad;
    image = base + args.layout.image;
    tiles = base + args.layout.tiles;
    delta = base + args.layout.delta;
    inputs = base + args.layout.inputs;
    grads = base + args.layout.grads;
  }
};

// Runs steps first ... end - 1 from `image` into `out`, which may be one; into nothing where `out` is null. `wholes[s]`
// is what step s wants to know; that of the step after the segment is gathered on the way. `laid_out`: scratch.padded
// holds the image already.
template <typename T>
inline void run_segment(const NuisanceArgs<T>& args, int64_t first, int64_t end, const T* image, const T* delta,
                        const Scratch<T>& scratch, Whole* wholes, T* out, bool laid_out = false) {
  const int64_t pixels = args.height * args.width;
  const Step& head = args.steps[first];
  const Step* next = end < args.count && wants_whole(args.steps[end]) ? args.steps + end : nullptr;
  if (head.transform == kBlur) {
    const auto taps = taps_of<T>(static_cast<int>(setting(head, 0)), static_cast<double>(delta[head.offset]));
    blur(image, taps, head.channels, args.height, args.width, scratch.image, out);
    if (next != nullptr) wholes[end] = look_at_image(*next, out, pixels);
    return;
  }
  const bool warps = head.transform == kAffine, border = setting(head, 1) == kBorder;
  const Padded size{args.height, args.width};
  Warp warp{};
  if (warps) {
    warp = warp_of(parameters_of(head, delta + head.offset), args.height, args.width);
    if (!laid_out) lay_out(image, head.channels, size, scratch.padded);
  }
  Whole whole{};
  for (int64_t pixel = 0; pixel < pixels; pixel += kTile) {
    const int64_t n = smaller(kTile, pixels - pixel);
    const Planes<T> tile{scratch.tiles, kTile}, last = out == nullptr ? tile : Planes<T>{out + pixel, pixels};
    Planes<const T> in{image + pixel, pixels};
    int64_t s = first;
    if (warps) {
      const Planes<T> to = ++s == end ? last : tile;
      warp_tile(warp, border, scratch.padded, head.channels, size, pixel, n, to);
      in = {to.first, to.stride};
    }
    const auto site = [&](int64_t step) {
      return Site<T>{args.steps[step], delta + args.steps[step].offset, wholes[step], pixel, args.height, args.width};
    };
    for (; s < end; ++s) {
      const bool two = s + 1 < end && is_line(args.steps[s]) && is_line(args.steps[s + 1]);
      const Planes<T> to = s + two == end - 1 ? last : tile;
      if (two)
        lines_forward(site(s), site(s + 1), in, to, n);
      else
        step_forward(site(s), in, to, n);
      s += two;
      in = {to.first, to.stride};
    }
    if (next != nullptr) look_at(*next, in, pixel, n, pixels, whole);
  }
  if (next != nullptr) wholes[end] = whole;
}

}  // namespace robustperf::ROBUSTPERF_ISA
