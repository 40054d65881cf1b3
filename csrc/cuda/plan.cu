#include "plan.hpp"

#include <algorithm>

namespace robustperf::cuda {

using namespace robustperf::ROBUSTPERF_ISA;

Plan plan_of(const Step* steps, int64_t count) {
  Plan plan{};
  for (int s = 0; s < count; ++s) {
    const Step& step = plan.steps[s] = steps[s];
    const bool warps = step.transform == kAffine, blurs = step.transform == kBlur;
    if (s == 0 || warps || blurs || steps[s - 1].transform == kBlur) plan.stretches[plan.count++] = {s, s};
    plan.stretches[plan.count - 1].end = s + 1;
    plan.wants_whole |= wants_whole(step);
    plan.rare |= is_rare(step.transform);
    plan.warps += warps;
    plan.blurs += blurs;
    plan.fogs += step.transform == kFog;
  }
  return plan;
}

template <typename T>
Grid grid_of(const NuisanceArgs<T>& args, const Plan& plan, const NuisanceKernels<T>& kernels) {
  constexpr int64_t kPerThread = 4;   // items that make it worth preparing a block for
  constexpr int64_t kBusy = 8 * 132;  // blocks that keep a large processor busy
  constexpr int64_t kCluster = 8;
  const int64_t pixels = args.height * args.width, values = args.channels_most * pixels;
  const int64_t items = blocks_for(pixels, kBundle<T>), rows = args.batch * args.draws;
  const bool back = kernels.back;
  Grid grid{1, false, rows, {}};
  if (!back && plan.count == 1 && plan.blurs == 0 && !plan.wants_whole) {  // no block needs to know of another
    grid.slices = static_cast<int>(
        std::max(blocks_for(items, kPlanThreads * kPerThread),
                 std::min(blocks_for(items, kPlanThreads), blocks_for(kBusy, std::max<int64_t>(rows, 1)))));
    return grid;
  }
  // From the pixels alone, not from batch or channels: sums are added up in the same order whatever comes beside the
  // image and whatever step turns grey into colour.
  if (items > kPlanThreads * kPerThread && has_clusters()) grid.slices = kCluster, grid.together = true;
  const auto room = [&](NuisanceKernel<T> kernel) {
    return resident(kernels.what, reinterpret_cast<const void*>(kernel), kPlanThreads, grid.cluster());
  };
  grid.teams = std::min(rows, std::max(room(kernels.by_bundle), room(kernels.by_pixel)));
  int64_t total = 0;
  const auto place = [&](int64_t bytes) {
    const int64_t here = total;
    total += (bytes + 15) / 16 * 16;
    return here;
  };
  TeamScratch& s = grid.scratch;
  s.image = (values * static_cast<int64_t>(sizeof(T)) + 15) / 16 * 16;
  const int64_t kept =
      plan.count - 1 + 2 + (plan.blurs > 0);  // the stretches' inputs, gradients, between rows and columns
  s.images = place(s.image * (back ? kept : plan.count + plan.blurs > 1 ? 1 : 0));
  s.fields = place(back ? plan.fogs * pixels * sizeof(T) : 0);
  s.fixed = place(back && plan.warps > 0 ? values * sizeof(int64_t) : 0);
  s.exchange = place(2 * grid.slices * sizeof(double));
  s.total = total;
  return grid;
}

template <typename T>
int64_t nuisance_scratch(const NuisanceArgs<T>& args, bool back) {
  const Plan plan = plan_of(args.steps, args.count);
  const Grid grid = grid_of(args, plan, back ? backward_kernels<T>(plan) : forward_kernels<T>(plan));
  return grid.teams * grid.scratch.total;
}

template int64_t nuisance_scratch<float>(const NuisanceArgs<float>&, bool);
template int64_t nuisance_scratch<double>(const NuisanceArgs<double>&, bool);
template Grid grid_of<float>(const NuisanceArgs<float>&, const Plan&, const NuisanceKernels<float>&);
template Grid grid_of<double>(const NuisanceArgs<double>&, const Plan&, const NuisanceKernels<double>&);

}  // namespace robustperf::cuda
