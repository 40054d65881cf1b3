#pragma once

#include "../core/halfspace_box_projection.hpp"
#include "backend.hpp"
#include "norm.hpp"

namespace robustperf {

template <typename Backend>
void def_halfspace_box_projection(py::module_& module) {
  module.def(
      "halfspace_box_projection",
      [](py::handle x_, py::handle w, py::handle c, py::handle delta, py::handle feasible, int norm, double lower,
         double upper, int64_t where) {
        const auto x = view<Backend>(x_, "x");
        by_dtype(x, [&](auto zero) {
          using T = decltype(zero);
          HalfspaceBoxProjectionArgs<T> args{};
          args.x = x.template data<T>({kAny, kAny});
          args.rows = x.size(0);
          args.dim = x.size(1);
          args.w = view<Backend>(w, "w").template data<T>({args.rows, args.dim});
          args.c = view<Backend>(c, "c").template data<double>({args.rows});
          args.delta = view<Backend>(delta, "delta").template data<T>({args.rows, args.dim});
          args.feasible = view<Backend>(feasible, "feasible").template data<bool>({args.rows});
          args.norm = norm_of(norm);
          args.lower = lower;
          args.upper = upper;
          Backend::run(args.rows * args.dim, where, [&](auto target) { halfspace_box_projection(args, target); });
        });
      },
      "Writes to delta [B, D] the smallest moves of x [B, D] to the halfspaces <w, delta> >= c within the box, and to "
      "feasible [B] which ones there are.",
      py::arg("x"), py::arg("w"), py::arg("c"), py::arg("delta"), py::arg("feasible"), py::arg("norm"),
      py::arg("lower"), py::arg("upper"), py::arg(Backend::kWhere));
}

}  // namespace robustperf
