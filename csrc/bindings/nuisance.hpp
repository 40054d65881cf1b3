#pragma once

#include "program.hpp"

namespace robustperf {

template <typename Backend>
void def_nuisance(py::module_& module) {
  module.def(
      "nuisance",
      [](py::handle x_, py::handle delta_, py::handle out_, [[maybe_unused]] py::handle scratch, const Codes& codes,
         const Parameters& parameters, int64_t where) {
        const auto x = view<Backend>(x_, "x"), delta = view<Backend>(delta_, "delta"), out = view<Backend>(out_, "out");
        int faults = 0;
        by_dtype(x, [&](auto zero) {
          Program program;
          NuisanceArgs<decltype(zero)> args{};
          set_images(args, x, codes, parameters, program);
          set_delta(args, delta);
          args.out = image_data(args, out);
          args.faults = &faults;
          if constexpr (Backend::kDevice == Device::cuda)
            set_scratch(args, view<Backend>(scratch, "scratch"), device::nuisance_scratch(args, false));
          Backend::run(work_of(args), where, [&](auto target) { nuisance(args, target); });
        });
        return faults;
      },
      "Writes to out [K, B, C', H, W] the images x [B, C, H, W] under delta [K, B, D]. Returns 1 if a pixel is not in "
      "[0, 1] plus 2 if delta is not finite; on a GPU always 0. scratch: nuisance_scratch int64 on a GPU, else None.",
      py::arg("x"), py::arg("delta"), py::arg("out"), py::arg("scratch"), py::arg("codes"), py::arg("parameters"),
      py::arg(Backend::kWhere));
  if constexpr (Backend::kDevice == Device::cuda)
    module.def(
        "nuisance_scratch",
        [](py::handle x_, py::handle delta_, const Codes& codes, const Parameters& parameters, bool backward) {
          const auto x = view<Backend>(x_, "x"), delta = view<Backend>(delta_, "delta");
          int64_t bytes = 0;
          by_dtype(x, [&](auto zero) {
            Program program;
            NuisanceArgs<decltype(zero)> args{};
            set_images(args, x, codes, parameters, program);
            set_delta(args, delta);
            bytes = device::nuisance_scratch(args, backward);
          });
          return (bytes + 7) / 8;
        },
        "The int64 elements of scratch that nuisance or nuisance_backward needs.", py::arg("x"), py::arg("delta"),
        py::arg("codes"), py::arg("parameters"), py::arg("backward"));
}

}  // namespace robustperf
