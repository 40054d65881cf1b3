#include "../core/nuisance_draw.hpp"

#include "transform_images.hpp"

namespace robustperf::ROBUSTPERF_TARGET {

template <typename T>
void nuisance_draw(const NuisanceDrawArgs<T>& args, Target target) {
  transform_images<T>(args, &args, target.threads);
}

template void nuisance_draw(const NuisanceDrawArgs<float>&, Target);
template void nuisance_draw(const NuisanceDrawArgs<double>&, Target);

}  // namespace robustperf::ROBUSTPERF_TARGET
