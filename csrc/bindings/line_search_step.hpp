#pragma once

#include "../core/line_search_step.hpp"
#include "backend.hpp"

namespace robustperf {

template <typename Backend>
void def_line_search_step(py::module_& module) {
  module.def(
      "line_search_step",
      [](py::handle logits_, py::handle rows_, py::handle label, py::handle x_, py::handle candidates_,
         py::handle lines, py::handle state, py::handle next, py::handle closest, double rounding_tolerance, double tol,
         bool bisection, int64_t probes, double max_iterations, int64_t where) {
        const auto x = view<Backend>(x_, "x"), candidates = view<Backend>(candidates_, "candidates"),
                   rows = view<Backend>(rows_, "rows");
        // T: the dtype of the points, L: of the logits
        const auto run = [&](auto zero, auto zero_logit) {
          using T = decltype(zero);
          using L = decltype(zero_logit);
          LineSearchStepArgs<T, L> args{};
          args.x = x.template data<T>({kAny, kAny});
          args.points = x.size(0);
          args.dim = x.size(1);
          args.candidates = candidates.template data<T>({kAny, args.points, args.dim});
          args.ensemble = candidates.size(0);
          args.rows = rows.template data<int64_t>({kAny});
          args.active = rows.size(0);
          args.label = view<Backend>(label, "label").template data<int64_t>({args.points});
          args.lines =
              view<Backend>(lines, "lines").template data<double>({args.points, args.ensemble, host::kLineFields});
          args.state = view<Backend>(state, "state").template data<double>({args.points, host::kSearchFields});
          args.next = view<Backend>(next, "next").template data<T>({args.active, args.dim});
          args.closest = view<Backend>(closest, "closest").template data<T>({args.points, args.dim});
          args.rounding_tolerance = rounding_tolerance;
          args.tol = tol;
          args.bisection = bisection;
          args.probes = probes;
          args.max_iterations = max_iterations;
          if (!logits_.is_none()) {
            const auto logits = view<Backend>(logits_, "logits");
            args.logits = logits.template data<L>({args.active, kAny});
            args.classes = logits.size(1);
          }
          if (Backend::kDevice == Device::cpu) {
            check_range("rows", args.rows, args.active, args.points);
            if (args.logits != nullptr) {
              check_range("label", args.label, args.points, args.classes);
              for (int64_t p = 0; p < args.points; ++p)
                if (!(reinterpret_cast<const host::Search*>(args.state)[p].line < static_cast<double>(args.ensemble)))
                  throw py::value_error("state: expected lines below " + std::to_string(args.ensemble));
            }
          }
          Backend::run(args.active * args.dim, where, [&](auto target) { line_search_step(args, target); });
        };
        const bool wide = !logits_.is_none() && view<Backend>(logits_, "logits").is(DType::float64);
        by_dtype(x, [&](auto zero) { wide ? run(zero, double{}) : run(zero, float{}); });
      },
      "Takes the logits at each active point's place, advances its search and writes the next place to evaluate. "
      "Updates lines, state, next and closest; logits None starts the searches.",
      py::arg("logits"), py::arg("rows"), py::arg("label"), py::arg("x"), py::arg("candidates"), py::arg("lines"),
      py::arg("state"), py::arg("next"), py::arg("closest"), py::arg("rounding_tolerance"), py::arg("tol"),
      py::arg("bisection"), py::arg("probes"), py::arg("max_iterations"), py::arg(Backend::kWhere));
}

}  // namespace robustperf
