#pragma once

#include "../core/nuisance_backward.hpp"
#include "program.hpp"

namespace robustperf {

template <typename Backend>
void def_nuisance_backward(py::module_& module) {
  module.def(
      "nuisance_backward",
      [](py::handle grad_, py::handle x_, py::handle delta_, py::handle grad_x_, py::handle grad_delta_,
         [[maybe_unused]] py::handle scratch, const Codes& codes, const Parameters& parameters, int64_t where) {
        const auto x = view<Backend>(x_, "x"), grad = view<Backend>(grad_, "grad"),
                   delta = view<Backend>(delta_, "delta"), grad_x = view<Backend>(grad_x_, "grad_x"),
                   grad_delta = view<Backend>(grad_delta_, "grad_delta");
        by_dtype(x, [&](auto zero) {
          using T = decltype(zero);
          Program program;
          NuisanceBackwardArgs<T> args{};
          set_images(args, x, codes, parameters, program);
          set_delta(args, delta);
          args.grad = image_data(args, grad);
          if constexpr (Backend::kDevice == Device::cuda) {
            args.grad_x = grad_x.template data<T>({args.draws, args.batch, args.channels, args.height, args.width});
            set_scratch(args, view<Backend>(scratch, "scratch"), device::nuisance_scratch<T>(args, true));
          } else {
            args.grad_x = grad_x.template data<T>({args.batch, args.channels, args.height, args.width});
          }
          args.grad_delta = grad_delta.template data<T>({args.draws, args.batch, args.dim});
          Backend::run(work_of(args), where, [&](auto target) { nuisance_backward(args, target); });
        });
      },
      "Writes to grad_x and grad_delta the gradients of nuisance, from grad [K, B, C', H, W]. grad_x is [B, C, H, W]; "
      "on "
      "a GPU that of each draw, [K, B, C, H, W]. scratch: nuisance_scratch int64 on a GPU, else None.",
      py::arg("grad"), py::arg("x"), py::arg("delta"), py::arg("grad_x"), py::arg("grad_delta"), py::arg("scratch"),
      py::arg("codes"), py::arg("parameters"), py::arg(Backend::kWhere));
}

}  // namespace robustperf
