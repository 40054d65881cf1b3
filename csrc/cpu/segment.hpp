// A program in segments: consecutive steps that run tile by tile, without an image between them. A segment begins with
// a step that needs statistics of its whole input or reads more than one pixel (a warp, a blur); a blur is a segment
// alone.
#pragma once

#include "../core/nuisance.hpp"
#include "blur.hpp"
#include "simd.hpp"
#include "warp.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

inline bool begins_segment(const Step& step) {
  return needs_image_statistics(step) || step.transform == kAffine || step.transform == kBlur;
}

// The end (exclusive) of the segment that begins with step `first`.
template <typename T>
inline int64_t segment_end(const NuisanceArgs<T>& args, int64_t first) {
  if (first >= args.count) return args.count;
  int64_t end = first + 1;
  if (args.steps[first].transform == kBlur) return end;
  while (end < args.count && !begins_segment(args.steps[end])) ++end;
  return end;
}

// The sum of n values, in sixteen lanes whatever the instruction set, for the same bits.
template <typename T>
inline double sum_of_run(const T* x, int64_t n) {
  RegisterOf<T> lanes[kRegistersOf<T>] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int r = 0; r < kRegistersOf<T>; ++r) lanes[r] += read(x + i + r * kWidthOf<T>);
  double sum = sum_of_lanes(lanes);
  for (; i < n; ++i) sum += x[i];
  return sum;
}

// Adds a tile's part to the statistics that `step` needs. `first`: the tile's first pixel; 0 starts the statistics.
template <typename T>
inline void add_statistics(const Step& step, Planes<const T> tile, int64_t first, int64_t n, int64_t pixels,
                           ImageStatistics& statistics) {
  if (step.transform == kContrast) {
    for (int c = 0; c < step.channels; ++c)
      statistics.value[0] += grey_weight(c, step.channels) * sum_of_run(tile[c], n) / pixels;
  } else if (step.transform == kFog) {
    T maximum = first == 0 ? tile[0][0] : static_cast<T>(statistics.value[0]);
    for (int c = 0; c < step.channels; ++c) {
      const T* x = tile[c];
#pragma omp simd reduction(max : maximum)
      for (int64_t i = 0; i < n; ++i) maximum = max_of(maximum, x[i]);
    }
    statistics.value[0] = maximum;
  } else if (first == 0) {
    for (int c = 0; c < 3; ++c) statistics.value[c] = tile[c][0];
  }
}

template <typename T>
inline ImageStatistics statistics_of(const Step& step, const T* image, int64_t pixels) {
  ImageStatistics statistics{};
  for (int64_t first = 0; first < pixels; first += kTile)
    add_statistics(step, Planes<const T>{image + first, pixels}, first, min_of(kTile, pixels - first), pixels,
                   statistics);
  return statistics;
}

enum class Pass { forward, draw, backward };

// Where a thread's scratch holds what, in elements from its beginning.
struct ScratchLayout {
  int64_t padded;       // the padded image for a warp
  int64_t padded_grad;  // and its gradient
  int64_t image;        // one image, for a blur
  int64_t tiles;        // tiles between steps
  int64_t delta;        // [dim], drawn on the fly
  int64_t inputs;       // [segments] images, the inputs of the segments
  int64_t grads;        // one image, the gradient between segments
  int64_t total;

  template <typename T>
  ScratchLayout(const NuisanceArgs<T>& args, Pass pass) {
    const bool backward = pass == Pass::backward;
    bool warps = false, blurs = false;
    for (int64_t s = 0; s < args.count; ++s) {
      warps |= args.steps[s].transform == kAffine;
      blurs |= args.steps[s].transform == kBlur;
    }
    total = 0;
    const auto place = [this](bool needed, int64_t size) {
      const int64_t here = total;
      if (needed) total += (size + 15) / 16 * 16;
      return here;
    };
    const int64_t pixels = args.max_channels * args.height * args.width;
    const int64_t padded_size = Padded{args.height, args.width}.size(args.max_channels);
    padded = place(warps || blurs, padded_size);
    image = place(blurs, pixels);
    tiles = place(true, (backward ? args.count : 1) * args.max_channels * kTile);
    delta = place(pass == Pass::draw, args.dim);
    padded_grad = place(backward && warps, padded_size);
    grads = place(backward, pixels);
    inputs = place(backward, args.count * pixels);
  }
};

// One thread's scratch.
template <typename T>
struct Scratch {
  T *padded, *padded_grad, *image, *tiles, *delta, *inputs, *grads;

  Scratch(const ScratchLayout& layout, T* all, int64_t thread) {
    T* base = all + thread * layout.total;
    padded = base + layout.padded;
    padded_grad = base + layout.padded_grad;
    image = base + layout.image;
    tiles = base + layout.tiles;
    delta = base + layout.delta;
    inputs = base + layout.inputs;
    grads = base + layout.grads;
  }
};

// Runs steps first ... end - 1 from `image` into `out`, which may be the same image, or, where `out` is null, only for
// the statistics. `statistics[s]` is what step s needs; those of step `end` are computed on the way. `is_padded`:
// scratch.padded already holds the image.
template <typename T>
inline void run_segment(const NuisanceArgs<T>& args, int64_t first, int64_t end, const T* image, const T* delta,
                        const Scratch<T>& scratch, ImageStatistics* statistics, T* out, bool is_padded = false) {
  const int64_t pixels = args.height * args.width;
  const Step& head = args.steps[first];
  const Step* next = end < args.count && needs_image_statistics(args.steps[end]) ? args.steps + end : nullptr;
  if (head.transform == kBlur) {
    const auto taps = taps_of<T>(blur_radius(head), static_cast<double>(delta[head.offset]));
    blur(image, taps, head.channels, args.height, args.width, scratch.image, out);
    if (next != nullptr) statistics[end] = statistics_of(*next, out, pixels);
    return;
  }
  const bool warps = head.transform == kAffine, border = extends_border(head);
  const Padded size{args.height, args.width};
  Warp warp{};
  if (warps) {
    warp = warp_of(warp_parameters_of(head, delta + head.offset), args.height, args.width);
    if (!is_padded) pad_image(image, head.channels, size, scratch.padded);
  }
  ImageStatistics of_next{};
  for (int64_t pixel = 0; pixel < pixels; pixel += kTile) {
    const int64_t n = min_of(kTile, pixels - pixel);
    const Planes<T> tile{scratch.tiles, kTile}, last = out == nullptr ? tile : Planes<T>{out + pixel, pixels};
    Planes<const T> in{image + pixel, pixels};
    int64_t s = first;
    if (warps) {
      const Planes<T> to = ++s == end ? last : tile;
      warp_tile(warp, border, scratch.padded, head.channels, size, pixel, n, to);
      in = {to.first, to.stride};
    }
    const auto context = [&](int64_t step) {
      return StepContext<T>{args.steps[step], delta + args.steps[step].offset, statistics[step], pixel, args.height,
                            args.width};
    };
    for (; s < end; ++s) {
      const bool two = s + 1 < end && is_linear(args.steps[s]) && is_linear(args.steps[s + 1]);
      const Planes<T> to = s + two == end - 1 ? last : tile;
      if (two)
        two_linear_forward(context(s), context(s + 1), in, to, n);
      else
        step_forward(context(s), in, to, n);
      s += two;
      in = {to.first, to.stride};
    }
    if (next != nullptr) add_statistics(*next, in, pixel, n, pixels, of_next);
  }
  if (next != nullptr) statistics[end] = of_next;
}

}  // namespace robustperf::ROBUSTPERF_TARGET
