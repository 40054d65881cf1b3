// A block group runs a segment of steps forward.
#pragma once

#include "reduce.hpp"
#include "steps.hpp"

namespace robustperf::device {

// The blocks that work on one image, from the point of view of one of them.
struct BlockGroup {
  int rank, blocks;
  bool clustered;    // the blocks wait for each other
  double* exchange;  // [2, blocks]

  // A barrier for all threads of the group.
  __device__ void sync() const {
    if (clustered)
      sync_cluster();
    else
      __syncthreads();
  }

  // The group's threads take items first(), first() + stride(), ...
  __device__ int64_t first() const { return static_cast<int64_t>(rank) * kPlanThreads + threadIdx.x; }
  __device__ int64_t stride() const { return static_cast<int64_t>(blocks) * kPlanThreads; }

  // block_reduce over all blocks. `parity`: every other call uses the other half of `exchange`, so that no block
  // overwrites what another may still read.
  template <typename Join>
  __device__ double reduce(double value, double* partial, int& parity, Join how) const {
    value = block_reduce(value, partial, how);
    if (!clustered) return value;
    double* all = exchange + parity * blocks;
    parity ^= 1;
    if (threadIdx.x == 0) all[rank] = value;
    sync();
    value = __ldcg(all);
    for (int s = 1; s < blocks; ++s) value = how(value, __ldcg(all + s));
    return value;
  }
};

struct Min {
  __device__ double operator()(double a, double b) const { return b < a ? b : a; }
};

// A block's shared memory.
template <typename T>
struct Shared {
  double partial[kMaxWarps];
  double statistics[kMaxSteps][3];    // the image statistics, by step
  double d_statistics[kMaxSteps][3];  // the gradients in them
  double argmax[kMaxSteps];           // the place of the maximum that fog needs
  WarpParameters parameters;
  Warp warp;
  Gaussian gaussians[kMaxRadius + 1];
  Taps<T> taps;
};

// An image under a draw, and the group that works on it.
template <typename T, bool kRegisterHeavy>
struct ImageTask {
  const NuisanceArgs<T>& args;
  const Plan& plan;
  const T* delta;  // the image's
  BlockGroup group;
  Shared<T>& shared;
  int parity;  // of group.reduce

  __device__ int64_t plane() const { return args.height * args.width; }

  __device__ double reduce(double value) { return reduce(value, Sum{}); }
  template <typename Join>
  __device__ double reduce(double value, Join how) {
    return group.reduce(value, shared.partial, parity, how);
  }

  __device__ StepContext<T> context(int s, int64_t pixel, int channel) const {
    return {plan.steps[s], delta, shared.statistics[s], pixel, channel, args.height, args.width};
  }

  // Calls body(first pixel, first channel) for this thread's tiles of kPixels pixels.
  template <int kPixels, typename Body>
  __device__ void each_tile(int channels, Body&& body) const {
    for (int c = 0; c < tiles_of(channels); ++c)
      for (int64_t i = group.first(); i < plane() / kPixels; i += group.stride()) body(i * kPixels, c);
  }

  // Calls body(i) for this thread's items of `count`.
  template <typename Body>
  __device__ void each_item(int64_t count, Body&& body) const {
    for (int64_t i = group.first(); i < count; i += group.stride()) body(i);
  }
};

template <typename T>
__device__ __noinline__ void prepare_warp(Shared<T>& shared, const Step& head, const T* delta, int64_t height,
                                          int64_t width) {
  shared.parameters = warp_parameters_of(head, delta);
  shared.warp = warp_of(shared.parameters, height, width);
}

// A thread per tap. All threads of the block must call it.
template <typename T>
__device__ __noinline__ void prepare_taps(Shared<T>& shared, int radius, double sigma) {
  static_assert(kMaxRadius < kPlanThreads);
  const int j = static_cast<int>(threadIdx.x);
  if (j <= radius) shared.gaussians[j] = gaussian_at(j, sigma);
  __syncthreads();
  if (j <= radius) set_tap(shared.taps, j, shared.gaussians[j], sum_of_gaussians(shared.gaussians, radius));
  if (j == 0) shared.taps.radius = radius;
}

// Prepares the warp or the blur that a segment begins with. All threads of the block must call it.
template <typename T, bool kRegisterHeavy>
__device__ void prepare(const ImageTask<T, kRegisterHeavy>& task, const Step& head) {
  if (head.transform != kAffine && head.transform != kBlur) return;
  const T* delta = task.delta + head.offset;
  if (head.transform == kAffine) {
    if (threadIdx.x == 0) prepare_warp(task.shared, head, delta, task.args.height, task.args.width);
  } else if constexpr (kRegisterHeavy) {
    prepare_taps(task.shared, blur_radius(head), static_cast<double>(*delta));
  }
  __syncthreads();
}

// The four neighbours of a position, zero outside the image.
template <typename T>
struct Neighbours {
  T a, b, p, s;  // up left, up right, down left, down right

  __device__ Neighbours(const T* channel, const SourcePosition<T>& at, int64_t height, int64_t width) {
    const bool left = at.x >= 0 && at.x < width, right = at.x + 1 >= 0 && at.x + 1 < width;
    const bool up = at.y >= 0 && at.y < height, down = at.y + 1 >= 0 && at.y + 1 < height;
    const T* row = channel + at.y * width + at.x;
    a = up && left ? row[0] : T(0);
    b = up && right ? row[1] : T(0);
    p = down && left ? row[width] : T(0);
    s = down && right ? row[width + 1] : T(0);
  }

  __device__ T upper(T right) const { return a + right * (b - a); }
  __device__ T lower(T right) const { return p + right * (s - p); }
};

// The input of a segment's steps after a warp: the warped image, or the image where there is no warp.
template <int kPixels, typename T, bool kRegisterHeavy>
__device__ Tile<T, kPixels> input_at(const ImageTask<T, kRegisterHeavy>& task, const Step& head, const T* image,
                                     int64_t pixel, int channel) {
  const int depth = depth_of(head.channels);
  const int64_t height = task.args.height, width = task.args.width;
  if (head.transform != kAffine) return read_tile<T, kPixels>(image, task.plane(), pixel, channel, depth);
  Tile<T, kPixels> b;
#pragma unroll
  for (int p = 0; p < kPixels; ++p) {
    const uint32_t here = static_cast<uint32_t>(pixel + p), y = here / static_cast<uint32_t>(width);
    const SourcePosition<T> at = source_position_of<T>(task.shared.warp, extends_border(head), y,
                                                       here - y * static_cast<uint32_t>(width), height, width);
#pragma unroll
    for (int c = 0; c < 3; ++c)
      if (c < depth) {
        const Neighbours<T> near(image + (channel + c) * task.plane(), at, height, width);
        const T upper = near.upper(at.right);
        b.v[c][p] = upper + at.down * (near.lower(at.right) - upper);
      }
  }
  return b;
}

// Steps first ... end - 1 on a tile.
template <typename T, bool kRegisterHeavy, int kPixels>
__device__ void run_steps(const ImageTask<T, kRegisterHeavy>& task, int first, int end, int64_t pixel, int channel,
                          Tile<T, kPixels>& b) {
  for (int s = first; s < end; ++s) step_forward<kRegisterHeavy>(task.context(s, pixel, channel), b);
}

// One value of the filter along a row or column.
template <typename T>
__device__ T filtered(const T* line, int64_t stride, int64_t i, int64_t size, const T* w, int radius) {
  T sum = w[0] * line[i * stride];
  for (int j = 1; j <= radius; ++j)
    sum += w[j] * (line[mirrored(i - j, size) * stride] + line[mirrored(i + j, size) * stride]);
  return sum;
}

// A value's position in an image.
struct Position {
  int64_t plane, y, x;  // its channel's first value; its row and column
};
template <typename T, bool kRegisterHeavy>
__device__ Position position_of(const ImageTask<T, kRegisterHeavy>& task, int64_t i) {
  const int64_t rest = i % task.plane();
  return {i - rest, rest / task.args.width, rest % task.args.width};
}

template <typename T, bool kRegisterHeavy>
__device__ T along_row(const ImageTask<T, kRegisterHeavy>& task, const T* image, Position at, const T* w) {
  return filtered(image + at.plane + at.y * task.args.width, 1, at.x, task.args.width, w, task.shared.taps.radius);
}
template <typename T, bool kRegisterHeavy>
__device__ T along_column(const ImageTask<T, kRegisterHeavy>& task, const T* image, Position at, const T* w) {
  return filtered(image + at.plane + at.x, task.args.width, at.y, task.args.height, w, task.shared.taps.radius);
}

// From the image `in` to the image `out`; `between` is scratch of a blur, another image. Where `out` is null, it only
// computes the image statistics. kArgmax: also the place of the maximum that fog needs.
template <int kPixels, bool kArgmax, typename T, bool kRegisterHeavy>
__device__ void run_segment(ImageTask<T, kRegisterHeavy>& task, Segment segment, const T* in, T* between, T* out) {
  const Step* steps = task.plan.steps;
  const Step& head = steps[segment.first];
  Shared<T>& shared = task.shared;
  prepare(task, head);
  if constexpr (kRegisterHeavy) {
    if (head.transform == kBlur) {
      if (out == nullptr) return;
      const int64_t values = head.channels * task.plane();
      const T* w = shared.taps.weight;
      task.each_item(values, [&](int64_t i) { between[i] = along_row(task, in, position_of(task, i), w); });
      task.group.sync();
      task.each_item(values, [&](int64_t i) { out[i] = along_column(task, between, position_of(task, i), w); });
      return;
    }
  }
  const int first = segment.first + (head.transform == kAffine ? 1 : 0);
  for (int stop = first;; ++stop) {
    while (stop < segment.end && !needs_image_statistics(steps[stop])) ++stop;
    if (stop == segment.end && out == nullptr) return;
    const Step* needs = stop < segment.end ? steps + stop : nullptr;
    const int channels_out = channels_after(steps[segment.end - 1].transform, steps[segment.end - 1].channels);
    const bool corner = needs != nullptr && needs->transform == kBackground;
    double sum = 0.0, maximum = -HUGE_VAL, place = HUGE_VAL;
    const auto visit = [&](int64_t pixel, int channel) {
      Tile<T, kPixels> b = input_at<kPixels>(task, head, in, pixel, channel);
      run_steps(task, first, stop, pixel, channel, b);
      if (needs == nullptr) {
        write_tile(out, task.plane(), pixel, channel, depth_of(channels_out), b);
      } else if (corner) {
        for (int c = 0; c < 3; ++c) shared.statistics[stop][c] = static_cast<double>(b.v[c][0]);
      } else if (needs->transform == kContrast) {
        T grey = 0;
#pragma unroll
        for (int p = 0; p < kPixels; ++p) grey += needs->channels == 3 ? grey_of(pixel_of(b, p)) : b.v[0][p];
        sum += static_cast<double>(grey);
      } else if constexpr (kRegisterHeavy) {
        each_value(b, depth_of(needs->channels), [&](T x, int c, int p) {
          const double at = static_cast<double>((channel + c) * task.plane() + pixel + p);
          if (static_cast<double>(x) > maximum || (kArgmax && static_cast<double>(x) == maximum && at < place)) {
            maximum = static_cast<double>(x);
            place = at;
          }
        });
      }
    };
    if (!corner)
      task.template each_tile<kPixels>(head.channels, visit);
    else if (threadIdx.x == 0)
      visit(0, 0);
    if (needs == nullptr) return;
    if (needs->transform == kContrast) {
      const double mean = task.reduce(sum) / static_cast<double>(task.plane());
      if (threadIdx.x == 0) shared.statistics[stop][0] = mean;
    } else if (kRegisterHeavy && needs->transform == kFog) {
      const double maximum_of_all = task.reduce(maximum, Max{});
      if (threadIdx.x == 0) shared.statistics[stop][0] = maximum_of_all;
      if constexpr (kArgmax) {
        place = task.reduce(maximum == maximum_of_all ? place : HUGE_VAL, Min{});
        if (threadIdx.x == 0) shared.argmax[stop] = place;
      }
    }
    __syncthreads();
  }
}

}  // namespace robustperf::device
