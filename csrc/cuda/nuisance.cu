#include "../core/nuisance.hpp"

#include "segment.hpp"

namespace robustperf::device {
namespace {

template <typename T, int kPixels, bool kRegisterHeavy>
__global__ void __launch_bounds__(kPlanThreads, kRegisterHeavy ? 1 : 2)
    nuisance_global(const __grid_constant__ NuisanceArgs<T> args, const __grid_constant__ Plan plan,
                    const __grid_constant__ Grid grid) {
  __shared__ Shared<T> shared;
  const int64_t plane = args.height * args.width, rows = args.batch * args.draws;
  const int64_t stride = gridDim.x / grid.blocks, first = blockIdx.x / grid.blocks;
  char* scratch = reinterpret_cast<char*>(args.scratch) + first * grid.scratch.total;
  const BlockGroup group{static_cast<int>(blockIdx.x % grid.blocks), grid.blocks, grid.clustered,
                         reinterpret_cast<double*>(scratch + grid.scratch.exchange)};
  T* spare = reinterpret_cast<T*>(scratch + grid.scratch.images);
  int parity = 0;
  for (int64_t item = first; item < rows; item += stride) {
    // The draws of a sample one after the other: it is read from memory once.
    const int64_t b = item / args.draws, row = item % args.draws * args.batch + b;
    T* out = args.out + row * args.channels_out * plane;
    ImageTask<T, kRegisterHeavy> task{args, plan, args.delta + row * args.dim, group, shared, parity};
    const T* in = args.x + b * args.channels * plane;
    int left = plan.count + plan.blurs;  // images to write; the last one is `out`
    const auto next = [&] { return --left % 2 == 0 ? out : spare; };
    for (int s = 0; s < plan.count; ++s) {
      T* between = plan.steps[plan.segments[s].first].transform == kBlur ? next() : nullptr;
      T* to = next();
      run_segment<kPixels, false>(task, plan.segments[s], in, between, to);
      task.group.sync();
      in = to;
    }
    parity = task.parity;
  }
}

}  // namespace

template <typename T>
PlanFunctions<NuisanceArgs<T>> forward_functions(const Plan& plan) {
  constexpr int kPixels = kTilePixels<T>;
  if (plan.register_heavy) return {"nuisance", false, nuisance_global<T, kPixels, true>, nuisance_global<T, 1, true>};
  return {"nuisance", false, nuisance_global<T, kPixels, false>, nuisance_global<T, 1, false>};
}

template <typename T>
void nuisance(const NuisanceArgs<T>& args, Target target) {
  if (args.batch * args.draws == 0) return;
  const Plan plan = plan_of(args.steps, args.count);
  const bool aligned = rows_of_16_bytes(args.height * args.width, args.x, args.out, args.scratch);
  run(args, args, plan, forward_functions<T>(plan), aligned, target.stream);
}

template PlanFunctions<NuisanceArgs<float>> forward_functions<float>(const Plan&);
template PlanFunctions<NuisanceArgs<double>> forward_functions<double>(const Plan&);
template void nuisance(const NuisanceArgs<float>&, Target);
template void nuisance(const NuisanceArgs<double>&, Target);

}  // namespace robustperf::device
