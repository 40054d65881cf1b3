#pragma once

#include "../core/nuisance_sample.hpp"
#include "program.hpp"

namespace robustperf {

template <typename Backend>
void def_nuisance_sample(py::module_& module) {
  module.def(
      "nuisance_sample",
      [](py::handle index_, py::handle draw_, py::handle delta, const Codes& codes, const Parameters& parameters,
         typename Backend::Key key, int64_t where) {
        const auto index = view<Backend>(index_, "index"), draw = view<Backend>(draw_, "draw");
        Program program;
        decode(codes, parameters, program);
        NuisanceSampleArgs args{};
        args.steps = program.steps;
        args.count = program.count;
        args.dim = program.dim;
        args.index = index.template data<int64_t>({kAny});
        args.draw = draw.template data<int64_t>({kAny});
        args.samples = index.size(0);
        args.draws = draw.size(0);
        args.delta = view<Backend>(delta, "delta").template data<float>({args.draws, args.samples, args.dim});
        Backend::set_key(args, key);
        Backend::run(args.draws * args.samples * args.dim, where, [&](auto target) { nuisance_sample(args, target); });
      },
      "Fills delta [K, B, D] with the draws [K] of the samples index [B].", py::arg("index"), py::arg("draw"),
      py::arg("delta"), py::arg("codes"), py::arg("parameters"), py::arg("key"), py::arg(Backend::kWhere));
}

}  // namespace robustperf
