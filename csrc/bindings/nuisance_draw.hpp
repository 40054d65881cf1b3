#pragma once

#include "../core/nuisance_draw.hpp"
#include "program.hpp"

namespace robustperf {

// On a GPU Python composes nuisance_draw of nuisance_sample and nuisance.
template <typename Backend>
void def_nuisance_draw(py::module_& module) {
  if constexpr (Backend::kDevice == Device::cpu)
    module.def(
        "nuisance_draw",
        [](py::handle out_, py::handle x_, py::handle index, py::handle draw_, const Codes& codes,
           const Parameters& parameters, typename Backend::Key key, int64_t where) {
          const auto x = view<Backend>(x_, "x"), draw = view<Backend>(draw_, "draw"), out = view<Backend>(out_, "out");
          int faults = 0;
          by_dtype(x, [&](auto zero) {
            Program program;
            NuisanceDrawArgs<decltype(zero)> args{};
            set_images(args, x, codes, parameters, program);
            args.key = key;
            args.index = view<Backend>(index, "index").template data<int64_t>({args.batch});
            args.draw = draw.template data<int64_t>({kAny});
            args.draws = draw.size(0);
            args.out = image_data(args, out);
            args.faults = &faults;
            Backend::run(work_of(args), where, [&](auto target) { nuisance_draw(args, target); });
          });
          return faults;
        },
        "Writes to out [K, B, C', H, W] the images x [B, C, H, W] under the draws [K] of the samples index [B]. "
        "Returns what nuisance returns.",
        py::arg("out"), py::arg("x"), py::arg("index"), py::arg("draw"), py::arg("codes"), py::arg("parameters"),
        py::arg("key"), py::arg(Backend::kWhere));
}

}  // namespace robustperf
