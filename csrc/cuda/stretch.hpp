// A team runs a stretch of steps forth.
#pragma once

#include "steps.hpp"
#include "team.hpp"

namespace robustperf::cuda {

// A block's share in a team.
struct Team {
  int slice, slices;
  bool together;     // the blocks wait for each other
  double* exchange;  // [2, slices]

  // All threads of the team must come here.
  __device__ void sync() const {
    if (together)
      sync_cluster();
    else
      __syncthreads();
  }

  // The team's threads take turns at the items.
  __device__ int64_t first() const { return static_cast<int64_t>(slice) * kPlanThreads + threadIdx.x; }
  __device__ int64_t stride() const { return static_cast<int64_t>(slices) * kPlanThreads; }

  // As join_threads, over all blocks. `turn`: every other call takes the other half of `exchange`, so that nobody
  // writes what somebody may still read.
  template <typename Join>
  __device__ double join(double value, double* between, int& turn, Join how) const {
    value = join_threads(value, between, how);
    if (!together) return value;
    double* all = exchange + turn * slices;
    turn ^= 1;
    if (threadIdx.x == 0) all[slice] = value;
    sync();
    value = __ldcg(all);
    for (int s = 1; s < slices; ++s) value = how(value, __ldcg(all + s));
    return value;
  }
};

struct Smaller {
  __device__ double operator()(double a, double b) const { return b < a ? b : a; }
};

// A block's shared memory.
template <typename T>
struct Shared {
  double between[kMostWarps];
  double wholes[kMostSteps][3];    // what the steps wanted to know
  double d_wholes[kMostSteps][3];  // the gradients in it
  double places[kMostSteps];       // where fog found its greatest value
  WarpParameters parameters;
  Warp warp;
  Bell bells[kMostRadius + 1];
  Taps<T> taps;
};

// An image under a draw, as a team goes through it.
template <typename T, bool kRare>
struct Work {
  const NuisanceArgs<T>& args;
  const Plan& plan;
  const T* delta;  // the image's
  Team team;
  Shared<T>& shared;
  int turn;  // of team.join

  __device__ int64_t plane() const { return args.height * args.width; }

  __device__ double join(double value) { return join(value, Add{}); }
  template <typename Join>
  __device__ double join(double value, Join how) {
    return team.join(value, shared.between, turn, how);
  }

  __device__ Site<T> site(int s, int64_t pixel, int channel) const {
    return {plan.steps[s], delta, shared.wholes[s], pixel, channel, args.height, args.width};
  }

  // Calls body(first pixel, first channel) for this thread's bundles of kPixels pixels.
  template <int kPixels, typename Body>
  __device__ void each_bundle(int channels, Body&& body) const {
    for (int c = 0; c < bundles_of(channels); ++c)
      for (int64_t i = team.first(); i < plane() / kPixels; i += team.stride()) body(i * kPixels, c);
  }

  // Calls body(value's place) for this thread's values of `count`.
  template <typename Body>
  __device__ void each_place(int64_t count, Body&& body) const {
    for (int64_t i = team.first(); i < count; i += team.stride()) body(i);
  }
};

template <typename T>
__device__ __noinline__ void prepare_warp(Shared<T>& shared, const Step& head, const T* delta, int64_t height,
                                          int64_t width) {
  shared.parameters = parameters_of(head, delta);
  shared.warp = warp_of(shared.parameters, height, width);
}

// A thread makes a tap: all of the block must come here.
template <typename T>
__device__ __noinline__ void prepare_taps(Shared<T>& shared, int radius, double sigma) {
  static_assert(kMostRadius < kPlanThreads);
  const int j = static_cast<int>(threadIdx.x);
  if (j <= radius) shared.bells[j] = bell_at(j, sigma);
  __syncthreads();
  if (j <= radius) set_tap(shared.taps, j, shared.bells[j], sum_of_bells(shared.bells, radius));
  if (j == 0) shared.taps.radius = radius;
}

// What a warp or a blur at the head of a stretch wants to have at hand. All threads of the block must come here.
template <typename T, bool kRare>
__device__ void prepare(const Work<T, kRare>& work, const Step& head) {
  if (head.transform != kAffine && head.transform != kBlur) return;
  const T* delta = work.delta + head.offset;
  if (head.transform == kAffine) {
    if (threadIdx.x == 0) prepare_warp(work.shared, head, delta, work.args.height, work.args.width);
  } else if constexpr (kRare) {
    prepare_taps(work.shared, static_cast<int>(setting(head, 0)), static_cast<double>(*delta));
  }
  __syncthreads();
}

// The four neighbours of a place, zero outside of the image.
template <typename T>
struct Neighbours {
  T a, b, p, s;  // up left, up right, down left, down right

  __device__ Neighbours(const T* channel, const Place<T>& at, int64_t height, int64_t width) {
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

// What comes into the steps of a stretch behind its head: the image, or the warped image.
template <int kPixels, typename T, bool kRare>
__device__ Bundle<T, kPixels> input_at(const Work<T, kRare>& work, const Step& head, const T* image, int64_t pixel,
                                       int channel) {
  const int depth = depth_of(head.channels);
  const int64_t height = work.args.height, width = work.args.width;
  if (head.transform != kAffine) return read_bundle<T, kPixels>(image, work.plane(), pixel, channel, depth);
  Bundle<T, kPixels> b;
#pragma unroll
  for (int p = 0; p < kPixels; ++p) {
    const uint32_t here = static_cast<uint32_t>(pixel + p), y = here / static_cast<uint32_t>(width);
    const Place<T> at = place_of<T>(work.shared.warp, setting(head, 1) == kBorder, y,
                                    here - y * static_cast<uint32_t>(width), height, width);
#pragma unroll
    for (int c = 0; c < 3; ++c)
      if (c < depth) {
        const Neighbours<T> near(image + (channel + c) * work.plane(), at, height, width);
        const T upper = near.upper(at.right);
        b.v[c][p] = upper + at.down * (near.lower(at.right) - upper);
      }
  }
  return b;
}

// Steps first ... end - 1 on a bundle.
template <typename T, bool kRare, int kPixels>
__device__ void run_steps(const Work<T, kRare>& work, int first, int end, int64_t pixel, int channel,
                          Bundle<T, kPixels>& b) {
  for (int s = first; s < end; ++s) step_forward<kRare>(work.site(s, pixel, channel), b);
}

// One value of the filter along a line of the image.
template <typename T>
__device__ T filtered(const T* line, int64_t stride, int64_t i, int64_t size, const T* w, int radius) {
  T sum = w[0] * line[i * stride];
  for (int j = 1; j <= radius; ++j)
    sum += w[j] * (line[mirrored(i - j, size) * stride] + line[mirrored(i + j, size) * stride]);
  return sum;
}

// A value's place among the values of an image.
struct Spot {
  int64_t plane, y, x;  // where its channel begins; its row and column
};
template <typename T, bool kRare>
__device__ Spot spot_of(const Work<T, kRare>& work, int64_t i) {
  const int64_t rest = i % work.plane();
  return {i - rest, rest / work.args.width, rest % work.args.width};
}

template <typename T, bool kRare>
__device__ T along_row(const Work<T, kRare>& work, const T* image, Spot at, const T* w) {
  return filtered(image + at.plane + at.y * work.args.width, 1, at.x, work.args.width, w, work.shared.taps.radius);
}
template <typename T, bool kRare>
__device__ T along_column(const Work<T, kRare>& work, const T* image, Spot at, const T* w) {
  return filtered(image + at.plane + at.x, work.args.width, at.y, work.args.height, w, work.shared.taps.radius);
}

// From `in` to `out`; a blur's rows go to `between`. All of them whole images, apart. Where `out` is null, what the
// steps want to know is found out and nothing else. kPlaces: so is where fog's greatest value lies.
template <int kPixels, bool kPlaces, typename T, bool kRare>
__device__ void run_stretch(Work<T, kRare>& work, Stretch stretch, const T* in, T* between, T* out) {
  const Step* steps = work.plan.steps;
  const Step& head = steps[stretch.first];
  Shared<T>& shared = work.shared;
  prepare(work, head);
  if constexpr (kRare) {
    if (head.transform == kBlur) {
      if (out == nullptr) return;
      const int64_t values = head.channels * work.plane();
      const T* w = shared.taps.weight;
      work.each_place(values, [&](int64_t i) { between[i] = along_row(work, in, spot_of(work, i), w); });
      work.team.sync();
      work.each_place(values, [&](int64_t i) { out[i] = along_column(work, between, spot_of(work, i), w); });
      return;
    }
  }
  const int first = stretch.first + (head.transform == kAffine ? 1 : 0);
  for (int stop = first;; ++stop) {
    while (stop < stretch.end && !wants_whole(steps[stop])) ++stop;
    if (stop == stretch.end && out == nullptr) return;
    const Step* asks = stop < stretch.end ? steps + stop : nullptr;
    const int channels_out = channels_after(steps[stretch.end - 1].transform, steps[stretch.end - 1].channels);
    const bool corner = asks != nullptr && asks->transform == kBackground;
    double sum = 0.0, most = -HUGE_VAL, place = HUGE_VAL;
    const auto look = [&](int64_t pixel, int channel) {
      Bundle<T, kPixels> b = input_at<kPixels>(work, head, in, pixel, channel);
      run_steps(work, first, stop, pixel, channel, b);
      if (asks == nullptr) {
        write_bundle(out, work.plane(), pixel, channel, depth_of(channels_out), b);
      } else if (corner) {
        for (int c = 0; c < 3; ++c) shared.wholes[stop][c] = static_cast<double>(b.v[c][0]);
      } else if (asks->transform == kContrast) {
        T grey = 0;
#pragma unroll
        for (int p = 0; p < kPixels; ++p) grey += asks->channels == 3 ? grey_of(pixel_of(b, p)) : b.v[0][p];
        sum += static_cast<double>(grey);
      } else if constexpr (kRare) {
        each_value(b, depth_of(asks->channels), [&](T x, int c, int p) {
          const double at = static_cast<double>((channel + c) * work.plane() + pixel + p);
          if (static_cast<double>(x) > most || (kPlaces && static_cast<double>(x) == most && at < place)) {
            most = static_cast<double>(x);
            place = at;
          }
        });
      }
    };
    if (!corner)
      work.template each_bundle<kPixels>(head.channels, look);
    else if (threadIdx.x == 0)
      look(0, 0);
    if (asks == nullptr) return;
    if (asks->transform == kContrast) {
      const double mean = work.join(sum) / static_cast<double>(work.plane());
      if (threadIdx.x == 0) shared.wholes[stop][0] = mean;
    } else if (kRare && asks->transform == kFog) {
      const double greatest = work.join(most, Larger{});
      if (threadIdx.x == 0) shared.wholes[stop][0] = greatest;
      if constexpr (kPlaces) {
        place = work.join(most == greatest ? place : HUGE_VAL, Smaller{});
        if (threadIdx.x == 0) shared.places[stop] = place;
      }
    }
    __syncthreads();
  }
}

}  // namespace robustperf::cuda
