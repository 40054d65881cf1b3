// The forward pass that nuisance and nuisance_draw share.
#pragma once

#include "../core/nuisance_draw.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

// Under args.delta or, where `drawn` is not null, under the draws that it names.
template <typename T>
void transform_images(const NuisanceArgs<T>& args, const NuisanceDrawArgs<T>* drawn, int threads);

}  // namespace robustperf::ROBUSTPERF_TARGET
