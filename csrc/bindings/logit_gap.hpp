#pragma once

#include "../core/logit_gap.hpp"
#include "backend.hpp"

namespace robustperf {

template <typename Backend>
void def_logit_gap(py::module_& module) {
  module.def(
      "logit_gap",
      [](py::handle logits_, py::handle label, py::handle gap, double rounding_tolerance, int64_t where) {
        const auto logits = view<Backend>(logits_, "logits");
        by_logit_dtype(logits, [&](auto zero) {
          using L = decltype(zero);
          LogitGapArgs<L> args{};
          args.logits = logits.template data<L>({kAny, kAny});
          args.rows = logits.size(0);
          args.classes = logits.size(1);
          args.label = view<Backend>(label, "label").template data<int64_t>({args.rows});
          args.gap = view<Backend>(gap, "gap").template data<double>({args.rows});
          args.rounding_tolerance = rounding_tolerance;
          Backend::run(args.rows * args.classes, where, [&](auto target) { logit_gap(args, target); });
        });
      },
      "Writes to gap [B] how far the logits [B, C] are from another label.", py::arg("logits"), py::arg("label"),
      py::arg("gap"), py::arg("rounding_tolerance"), py::arg(Backend::kWhere));
}

}  // namespace robustperf
