// How a GPU runs a nuisance program.
//
// A block group, one block or a cluster, takes an image under a draw. Steps that read one pixel at a time run on pixels
// in registers; a segment of them, with a warp before it or not, needs no image in between. The image statistics that a
// step needs are computed in a pass of their own over the beginning of the segment, whose input is in the cache by
// then. Only a warp or a blur after other steps makes the image be written to memory.
#pragma once

#include "../core/nuisance_backward.hpp"
#include "cluster.hpp"

namespace robustperf::device {

constexpr int kPlanThreads = 256;

// Pixels in a thread's tile where the layout allows, in one access of 16 bytes; doubles, which need twice the
// registers, go one by one.
template <typename T>
constexpr int kTilePixels = sizeof(T) == 4 ? 4 : 1;

// Steps first ... end - 1. A blur is a segment alone.
struct Segment {
  int first, end;
};

// Passed to the GPU by value.
struct Plan {
  Step steps[kMaxSteps];
  Segment segments[kMaxSteps];
  int count;                    // of segments
  bool needs_image_statistics;  // some step does
  bool register_heavy;          // some step is
  int warps, blurs, fogs;
};

// Steps that take many registers. Programs without them run on more threads at the same time.
ROBUSTPERF_HD constexpr bool is_register_heavy(Transform transform) {
  return transform == kShot || transform == kBlur || transform == kFog;
}

Plan plan_of(const Step* steps, int64_t count);

// A block group's scratch, in bytes from its beginning.
struct GroupScratch {
  int64_t images;    // whole images
  int64_t image;     // bytes of one
  int64_t fields;    // the gradients of fields of fog, a number per pixel
  int64_t fixed;     // the gradient of an image in fixed point
  int64_t exchange;  // two numbers per block
  int64_t total;
};

struct Grid {
  int blocks;      // of a group
  bool clustered;  // they wait for each other
  int64_t groups;  // that run at the same time
  GroupScratch scratch;

  int cluster() const { return clustered ? blocks : 1; }
};

// The __global__ functions that can run a plan: by tiles of kTilePixels pixels, or pixel by pixel where the layout
// requires it.
template <typename Args>
using PlanFunction = void (*)(Args, Plan, Grid);
template <typename Args>
struct PlanFunctions {
  const char* what;
  bool backward;
  PlanFunction<Args> by_tile, by_pixel;
};

template <typename T>
PlanFunctions<NuisanceArgs<T>> forward_functions(const Plan& plan);
template <typename T>
PlanFunctions<NuisanceBackwardArgs<T>> backward_functions(const Plan& plan);

// As many groups as the device has room for, whichever of the functions runs.
template <typename T, typename Args>
Grid grid_of(const NuisanceArgs<T>& args, const Plan& plan, const PlanFunctions<Args>& functions);

// `aligned`: images can be read 16 bytes at a time.
template <typename T, typename Args>
void run(const NuisanceArgs<T>& images, const Args& args, const Plan& plan, const PlanFunctions<Args>& functions,
         bool aligned, cudaStream_t stream) {
  const Grid grid = grid_of(images, plan, functions);
  launch(functions.what, aligned ? functions.by_tile : functions.by_pixel, grid.groups * grid.blocks, kPlanThreads,
         grid.cluster(), stream, args, plan, grid);
}

}  // namespace robustperf::device
