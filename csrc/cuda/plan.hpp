// How a nuisance program is run on a GPU.
//
// A team, one block or several, takes an image under a draw. Steps that look at one pixel at a time are run on pixels
// in registers; a stretch of them, with a warp before it or not, needs no image in between. What a step wants to know
// of the whole image is found in a pass of its own over the stretch's beginning, whose input is in the cache by then.
// Only a warp or a blur behind other steps makes the image be written down.
#pragma once

#include "../core/arguments.hpp"
#include "cluster.hpp"

namespace robustperf::cuda {

constexpr int kPlanThreads = 256;

// Pixels that a thread takes at once where the layout allows, in one access of 16 bytes; doubles, which need twice the
// registers, go one by one.
template <typename T>
constexpr int kBundle = sizeof(T) == 4 ? 4 : 1;

// Steps first ... end - 1; a blur alone.
struct Stretch {
  int first, end;
};

// Handed to the kernel by value.
struct Plan {
  Step steps[kMostSteps];
  Stretch stretches[kMostSteps];
  int count;         // of stretches
  bool wants_whole;  // some step does
  bool rare;         // some step is_rare
  int warps, blurs, fogs;
};

// Steps that take many registers. Kernels for programs without them keep more threads at work.
ROBUSTPERF_HD constexpr bool is_rare(Transform transform) {
  return transform == kShot || transform == kBlur || transform == kFog;
}

Plan plan_of(const Step* steps, int64_t count);

// A team's place to work, in bytes from its beginning.
struct TeamScratch {
  int64_t images;    // whole images
  int64_t image;     // bytes of one
  int64_t fields;    // the gradients of fields of fog, a number a pixel
  int64_t fixed;     // the gradient of an image in fixed point
  int64_t exchange;  // two numbers for each block
  int64_t total;
};

struct Grid {
  int slices;     // blocks an image
  bool together;  // they wait for each other
  int64_t teams;  // at work at the same time
  TeamScratch scratch;

  int cluster() const { return together ? slices : 1; }
};

template <typename T>
using NuisanceKernel = void (*)(NuisanceArgs<T>, Plan, Grid);

// Those that may run a plan: by kBundle pixels, or one by one where the layout wants it.
template <typename T>
struct NuisanceKernels {
  const char* what;
  bool back;
  NuisanceKernel<T> by_bundle, by_pixel;
};

template <typename T>
NuisanceKernels<T> forward_kernels(const Plan& plan);
template <typename T>
NuisanceKernels<T> backward_kernels(const Plan& plan);

// As many teams as the device has room for, whichever of the kernels runs.
template <typename T>
Grid grid_of(const NuisanceArgs<T>& args, const Plan& plan, const NuisanceKernels<T>& kernels);

// `aligned`: images can be read 16 bytes at a time.
template <typename T>
void run(const NuisanceArgs<T>& args, const Plan& plan, const NuisanceKernels<T>& kernels, bool aligned,
         cudaStream_t stream) {
  const Grid grid = grid_of(args, plan, kernels);
  launch(kernels.what, aligned ? kernels.by_bundle : kernels.by_pixel, grid.teams * grid.slices, kPlanThreads,
         grid.cluster(), stream, args, plan, grid);
}

}  // namespace robustperf::cuda
