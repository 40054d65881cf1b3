#pragma once

#include "../core/best_of_k.hpp"
#include "backend.hpp"

namespace robustperf {

template <typename Backend>
void def_best_of_k(py::module_& module) {
  module.def(
      "best_of_k",
      [](py::handle logits_, py::handle target_, py::handle loss, py::handle index, int64_t first, bool first_chunk,
         bool whole_batch, double label_smoothing, int64_t ignore_index, py::handle losses, py::handle blocks_done,
         int64_t where) {
        const auto logits = view<Backend>(logits_, "logits");
        by_logit_dtype(logits, [&](auto zero) {
          using L = decltype(zero);
          using T = ComputeType<L>;
          BestOfKArgs<L> args{};
          args.logits = logits.template data<L>({kAny, kAny, kAny});
          args.draws = logits.size(0);
          args.rows = logits.size(1);
          args.classes = logits.size(2);
          args.target = view<Backend>(target_, "target").template data<int64_t>({args.rows});
          args.loss = view<Backend>(loss, "loss").template data<T>({args.rows});
          args.index = view<Backend>(index, "index").template data<int64_t>({args.rows});
          if (args.draws < 1 || args.classes < 1)
            throw py::value_error("logits: expected at least one draw and one class");
          for (int64_t b = 0; Backend::kDevice == Device::cpu && b < args.rows; ++b)
            if ((args.target[b] < 0 || args.target[b] >= args.classes) && args.target[b] != ignore_index)
              throw py::value_error("target: expected labels in 0.." + std::to_string(args.classes - 1) + ", got " +
                                    std::to_string(args.target[b]));
          args.first = first;
          args.first_chunk = first_chunk;
          args.whole_batch = whole_batch;
          args.label_smoothing = label_smoothing;
          args.ignore_index = ignore_index;
          if (Backend::kDevice == Device::cuda && whole_batch) {
            args.losses = view<Backend>(losses, "losses").template data<T>({args.draws, args.rows});
            args.blocks_done =
                reinterpret_cast<unsigned*>(view<Backend>(blocks_done, "blocks_done").template data<int64_t>({1}));
          }
          Backend::run(args.draws * args.rows * args.classes, where, [&](auto target) { best_of_k(args, target); });
        });
      },
      "Updates loss [B] and index [B] with the draws' logits [K, B, C]: the largest cross-entropy and its draw. "
      "losses [K, B] and blocks_done [1] are scratch of a GPU for whole_batch, otherwise None.",
      py::arg("logits"), py::arg("target"), py::arg("loss"), py::arg("index"), py::arg("first"), py::arg("first_chunk"),
      py::arg("whole_batch"), py::arg("label_smoothing"), py::arg("ignore_index"), py::arg("losses"),
      py::arg("blocks_done"), py::arg(Backend::kWhere));
}

}  // namespace robustperf
