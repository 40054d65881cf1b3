#include "plan.hpp"

#include <algorithm>

namespace robustperf::device {

Plan plan_of(const Step* steps, int64_t count) {
  Plan plan{};
  for (int s = 0; s < count; ++s) {
    const Step& step = plan.steps[s] = steps[s];
    const bool warps = step.transform == kAffine, blurs = step.transform == kBlur;
    if (s == 0 || warps || blurs || steps[s - 1].transform == kBlur) plan.segments[plan.count++] = {s, s};
    plan.segments[plan.count - 1].end = s + 1;
    plan.needs_image_statistics |= needs_image_statistics(step);
    plan.register_heavy |= is_register_heavy(step.transform);
    plan.warps += warps;
    plan.blurs += blurs;
    plan.fogs += step.transform == kFog;
  }
  return plan;
}

template <typename T, typename Args>
Grid grid_of(const NuisanceArgs<T>& args, const Plan& plan, const PlanFunctions<Args>& functions) {
  constexpr int64_t kPerThread = 4;   // tiles that make it worth preparing a block
  constexpr int64_t kBusy = 8 * 132;  // blocks that keep a large GPU busy
  constexpr int64_t kCluster = 8;
  const int64_t pixels = args.height * args.width, values = args.max_channels * pixels;
  const int64_t tiles = blocks_for(pixels, kTilePixels<T>), rows = args.batch * args.draws;
  Grid grid{1, false, rows, {}};
  // Then no block depends on another.
  if (!functions.backward && plan.count == 1 && plan.blurs == 0 && !plan.needs_image_statistics) {
    grid.blocks = static_cast<int>(
        std::max(blocks_for(tiles, kPlanThreads * kPerThread),
                 std::min(blocks_for(tiles, kPlanThreads), blocks_for(kBusy, std::max<int64_t>(rows, 1)))));
    return grid;
  }
  // From the pixels alone, not from batch or channels: the order of additions must not depend on the other images of
  // the batch, nor on whether a step turns grey into colour.
  if (tiles > kPlanThreads * kPerThread && has_clusters()) grid.blocks = kCluster, grid.clustered = true;
  const auto room = [&](PlanFunction<Args> function) {
    return resident(functions.what, reinterpret_cast<const void*>(function), kPlanThreads, grid.cluster());
  };
  grid.groups = std::min(rows, std::max(room(functions.by_tile), room(functions.by_pixel)));
  int64_t total = 0;
  const auto place = [&](int64_t bytes) {
    const int64_t here = total;
    total += (bytes + 15) / 16 * 16;
    return here;
  };
  GroupScratch& s = grid.scratch;
  s.image = (values * static_cast<int64_t>(sizeof(T)) + 15) / 16 * 16;
  // backward: the inputs of all segments but the first, two gradients, and one between a blur's rows and columns
  const int64_t images = functions.backward            ? plan.count - 1 + 2 + (plan.blurs > 0)
                         : plan.count + plan.blurs > 1 ? 1
                                                       : 0;
  s.images = place(s.image * images);
  s.fields = place(functions.backward ? plan.fogs * pixels * sizeof(T) : 0);
  s.fixed = place(functions.backward && plan.warps > 0 ? values * sizeof(int64_t) : 0);
  s.exchange = place(2 * grid.blocks * sizeof(double));
  s.total = total;
  return grid;
}

template <typename T>
int64_t nuisance_scratch(const NuisanceArgs<T>& args, bool backward) {
  const Plan plan = plan_of(args.steps, args.count);
  const Grid grid =
      backward ? grid_of(args, plan, backward_functions<T>(plan)) : grid_of(args, plan, forward_functions<T>(plan));
  return grid.groups * grid.scratch.total;
}

template int64_t nuisance_scratch(const NuisanceArgs<float>&, bool);
template int64_t nuisance_scratch(const NuisanceArgs<double>&, bool);
template Grid grid_of(const NuisanceArgs<float>&, const Plan&, const PlanFunctions<NuisanceArgs<float>>&);
template Grid grid_of(const NuisanceArgs<double>&, const Plan&, const PlanFunctions<NuisanceArgs<double>>&);
template Grid grid_of(const NuisanceArgs<float>&, const Plan&, const PlanFunctions<NuisanceBackwardArgs<float>>&);
template Grid grid_of(const NuisanceArgs<double>&, const Plan&, const PlanFunctions<NuisanceBackwardArgs<double>>&);

}  // namespace robustperf::device
