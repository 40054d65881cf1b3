// The line-search step's binding, the same for the CPU and the CUDA module.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "../core/bracket.hpp"
#include "tensor_view.hpp"

namespace robustperf {

// An index out of range would read or write other memory. Numbers on a GPU are not waited for.
inline void check_range(const char* name, const int64_t* values, int64_t count, int64_t end) {
  for (int64_t i = 0; i < count; ++i)
    if (values[i] < 0 || values[i] >= end)
      throw py::value_error(std::string(name) + ": expected numbers in 0.." + std::to_string(end - 1) + ", got " +
                            std::to_string(values[i]));
}

// Backend::kDevice and Backend::run<T, L>(LineSearchArgs<T>, where): `where` is the number of threads on the CPU, the
// stream on a GPU.
template <typename Backend>
void def_line_search_step(py::module_& m) {
  const auto step = [](py::handle logits_, py::handle rows_, py::handle label_, py::handle x_, py::handle candidates_,
                       py::handle lines_, py::handle state_, py::handle next_, py::handle closest_, double allowance,
                       double tol, bool bisection, int64_t probes, double patience, int64_t where) {
    const auto view = [](py::handle tensor, const char* name) { return TensorView(tensor, name, Backend::kDevice); };
    const TensorView x = view(x_, "x"), candidates = view(candidates_, "candidates"), rows = view(rows_, "rows");

    by_dtype(x, [&](auto zero, DType dtype) {
      using T = decltype(zero);
      LineSearchArgs<T> args{};
      args.x = x.data<T>(dtype, {kAny, kAny});
      args.points = x.size(0);
      args.dim = x.size(1);
      args.candidates = candidates.data<T>(dtype, {kAny, args.points, args.dim});
      args.ensemble = candidates.size(0);
      args.rows = rows.data<int64_t>(DType::int64, {kAny});
      args.active = rows.size(0);
      args.label = view(label_, "label").template data<int64_t>(DType::int64, {args.points});
      args.lines =
          view(lines_, "lines").template data<double>(DType::float64, {args.points, args.ensemble, host::kLineFields});
      args.state = view(state_, "state").template data<double>(DType::float64, {args.points, host::kSearchFields});
      args.next = view(next_, "next").template data<T>(dtype, {args.active, args.dim});
      args.closest = view(closest_, "closest").template data<T>(dtype, {args.points, args.dim});
      args.allowance = allowance;
      args.tol = tol;
      args.bisection = bisection;
      args.probes = probes;
      args.patience = patience;
      bool wide = false;
      if (!logits_.is_none()) {
        const TensorView logits = view(logits_, "logits");
        wide = logits.is(DType::float64);
        args.logits = logits.template data<void>(wide ? DType::float64 : DType::float32, {args.active, kAny});
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
      if (wide)
        Backend{}.template run<T, double>(args, where);
      else
        Backend{}.template run<T, float>(args, where);
    });
  };
  m.def("line_search_step", step);
}

}  // namespace robustperf
