#pragma once

#include "../core/draws.hpp"
#include "backend.hpp"

namespace robustperf {

template <typename Backend>
void def_draws(py::module_& module) {
  module.def(
      "draws",
      [](py::handle index_, py::handle draw_, py::handle out_, typename Backend::Key key, bool normal, int64_t where) {
        const auto index = view<Backend>(index_, "index"), draw = view<Backend>(draw_, "draw"),
                   out = view<Backend>(out_, "out");
        DrawsArgs args{};
        args.index = index.template data<int64_t>({kAny});
        args.draw = draw.template data<int64_t>({kAny});
        args.samples = index.size(0);
        args.draws = draw.size(0);
        args.out = out.template data<float>({args.draws, args.samples, kAny});
        args.dim = out.size(2);
        args.normal = normal;
        Backend::set_key(args, key);
        Backend::run(args.draws * args.samples * args.dim, where, [&](auto target) { draws(args, target); });
      },
      "Fills out [K, B, D] with uniforms or normals for the draws [K] of the samples index [B].", py::arg("index"),
      py::arg("draw"), py::arg("out"), py::arg("key"), py::arg("normal"), py::arg(Backend::kWhere));
}

}  // namespace robustperf
