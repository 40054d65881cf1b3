#pragma once

#include "../core/ball_box_projection.hpp"
#include "backend.hpp"
#include "norm.hpp"

namespace robustperf {

template <typename Backend>
void def_ball_box_projection(py::module_& module) {
  module.def(
      "ball_box_projection",
      [](py::handle x_, py::handle delta, py::handle radius, py::handle lower, py::handle upper, py::handle out,
         int norm, int64_t where) {
        const auto x = view<Backend>(x_, "x");
        by_dtype(x, [&](auto zero) {
          using T = decltype(zero);
          BallBoxProjectionArgs<T> args{};
          args.x = x.template data<T>({kAny, kAny});
          args.rows = x.size(0);
          args.dim = x.size(1);
          args.delta = view<Backend>(delta, "delta").template data<T>({args.rows, args.dim});
          args.radius = view<Backend>(radius, "radius").template data<double>({args.rows});
          args.lower = view<Backend>(lower, "lower").template data<T>({args.dim});
          args.upper = view<Backend>(upper, "upper").template data<T>({args.dim});
          args.out = view<Backend>(out, "out").template data<T>({args.rows, args.dim});
          args.norm = norm_of(norm);
          Backend::run(args.rows * args.dim, where, [&](auto target) { ball_box_projection(args, target); });
        });
      },
      "Writes to out [B, D] the deltas [B, D] moved into the balls around x [B, D], for the norm 2 onto the spheres, "
      "within the box.",
      py::arg("x"), py::arg("delta"), py::arg("radius"), py::arg("lower"), py::arg("upper"), py::arg("out"),
      py::arg("norm"), py::arg(Backend::kWhere));
}

}  // namespace robustperf
