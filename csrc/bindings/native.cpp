// robustperf._native: the CPU operations.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "../core/philox.hpp"
#include "../cpu/dispatch.hpp"
#include "line_search.hpp"
#include "nuisance.hpp"
#include "tensor_view.hpp"

namespace robustperf {
namespace {

TensorView cpu(py::handle tensor, const char* name) { return TensorView(tensor, name, Device::cpu); }

void logit_gap(py::handle logits_, py::handle label_, py::handle gap_, double allowance) {
  const TensorView logits = cpu(logits_, "logits");
  const bool wide = logits.is(DType::float64);
  GapArgs args{};
  args.logits = logits.data<void>(wide ? DType::float64 : DType::float32, {kAny, kAny});
  args.rows = logits.size(0);
  args.classes = logits.size(1);
  args.label = cpu(label_, "label").data<int64_t>(DType::int64, {args.rows});
  args.gap = cpu(gap_, "gap").data<double>(DType::float64, {args.rows});
  args.allowance = allowance;
  py::gil_scoped_release release;
  with_kernels([&](auto kernels) {
    if (wide) kernels.template logit_gap<double>(args);
    else kernels.template logit_gap<float>(args);
  });
}

struct LineSearchOnCpu {
  static constexpr Device kDevice = Device::cpu;
  template <typename T, typename L>
  void run(const LineSearchArgs<T>& args, int threads) {
    const int team = threads_for(args.active * args.dim, threads);
    py::gil_scoped_release release;
    with_kernels([&](auto kernels) { kernels.template line_search_step<T, L>(args, team); });
  }
};

void halfspace_box_projection(py::handle x_, py::handle w_, py::handle c_, py::handle delta_, py::handle feasible_,
                              int norm, double lower, double upper, int threads) {
  const TensorView x = cpu(x_, "x"), w = cpu(w_, "w"), c = cpu(c_, "c"), delta = cpu(delta_, "delta"),
                   feasible = cpu(feasible_, "feasible");
  by_dtype(x, [&](auto zero, DType dtype) {
    using T = decltype(zero);
    ProjectionArgs<T> args{};
    args.x = x.data<T>(dtype, {kAny, kAny});
    args.rows = x.size(0);
    args.dim = x.size(1);
    args.w = w.data<T>(dtype, {args.rows, args.dim});
    args.c = c.data<double>(DType::float64, {args.rows});
    args.delta = delta.data<T>(dtype, {args.rows, args.dim});
    args.feasible = feasible.data<bool>(DType::boolean, {args.rows});
    if (norm < 1 || norm > 3) throw py::value_error("norm: expected a code from 1 to 3, got " + std::to_string(norm));
    args.norm = norm;
    args.lower = lower;
    args.upper = upper;
    const int team = threads_for(args.rows * args.dim, threads);
    const auto scratch = std::make_unique<double[]>(team * projection_scratch(args.dim));
    args.scratch = scratch.get();
    py::gil_scoped_release release;
    with_kernels([&](auto kernels) { kernels.template halfspace_box_projection<T>(args, team); });
  });
}

void best_of_k(py::handle logits_, py::handle target_, py::handle loss_, py::handle index_, int64_t first, bool fresh,
               bool whole_batch, double label_smoothing, int64_t ignore_index, int threads) {
  const TensorView logits = cpu(logits_, "logits"), target = cpu(target_, "target"), loss = cpu(loss_, "loss"),
                   index = cpu(index_, "index");
  const auto run = [&](auto number, auto logit, DType dtype, DType loss_dtype) {
    using T = decltype(number);
    using L = decltype(logit);
    BestOfKArgs<T> args{};
    args.logits = logits.data<void>(dtype, {kAny, kAny, kAny});
    args.draws = logits.size(0);
    args.rows = logits.size(1);
    args.classes = logits.size(2);
    args.target = target.data<int64_t>(DType::int64, {args.rows});
    args.loss = loss.data<T>(loss_dtype, {args.rows});
    args.index = index.data<int64_t>(DType::int64, {args.rows});
    if (args.draws < 1 || args.classes < 1)
      throw py::value_error("logits: expected at least one draw and one class");
    for (int64_t b = 0; b < args.rows; ++b)
      if ((args.target[b] < 0 || args.target[b] >= args.classes) && args.target[b] != ignore_index)
        throw py::value_error("target: expected labels in 0.." + std::to_string(args.classes - 1) + ", got " +
                              std::to_string(args.target[b]));
    args.first = first;
    args.fresh = fresh;
    args.whole_batch = whole_batch;
    args.label_smoothing = label_smoothing;
    args.ignore_index = ignore_index;
    // not make_unique, which would write zeros first
    const std::unique_ptr<T[]> losses(new T[args.draws * args.rows]);
    const std::unique_ptr<double[]> totals(new double[args.draws]);
    args.losses = losses.get();
    args.totals = totals.get();
    const int team = threads_for(args.draws * args.rows * args.classes, threads);
    py::gil_scoped_release release;
    with_kernels([&](auto kernels) { kernels.template best_of_k<T, L>(args, team); });
  };
  if (logits.is(DType::float64)) run(double{}, double{}, DType::float64, DType::float64);
  else if (logits.is(DType::bfloat16)) run(float{}, BFloat16{}, DType::bfloat16, DType::float32);
  else if (logits.is(DType::float16)) run(float{}, Float16{}, DType::float16, DType::float32);
  else run(float{}, float{}, DType::float32, DType::float32);
}

// Products of rows of x and supports, with the squares of both, turned into the kernel's values in place.
void rbf_kernel(py::handle products_, py::handle squares_of_x_, py::handle squares_of_s_, double gamma, int threads) {
  const TensorView products = cpu(products_, "products"), squares_of_x = cpu(squares_of_x_, "squares_of_x"),
                   squares_of_s = cpu(squares_of_s_, "squares_of_s");
  by_dtype(products, [&](auto zero, DType dtype) {
    using T = decltype(zero);
    RbfArgs<T> args{};
    args.products = products.data<T>(dtype, {kAny, kAny});
    args.rows = products.size(0);
    args.supports = products.size(1);
    args.squares_of_x = squares_of_x.data<T>(dtype, {args.rows});
    args.squares_of_s = squares_of_s.data<T>(dtype, {args.supports});
    args.gamma = gamma;
    const int team = threads_for(args.rows * args.supports, threads);
    py::gil_scoped_release release;
    with_kernels([&](auto kernels) { kernels.template rbf_kernel<T>(args, team); });
  });
}

void draws(py::handle index_, py::handle draw_, py::handle out_, uint64_t key, bool normal, int threads) {
  const TensorView index = cpu(index_, "index"), draw = cpu(draw_, "draw"), out = cpu(out_, "out");
  DrawArgs args{};
  args.key = key;
  args.index = index.data<int64_t>(DType::int64, {kAny});
  args.draw = draw.data<int64_t>(DType::int64, {kAny});
  args.samples = index.size(0);
  args.draws = draw.size(0);
  args.out = out.data<float>(DType::float32, {args.draws, args.samples, kAny});
  args.dim = out.size(2);
  const int team = threads_for(args.draws * args.samples * args.dim, threads);
  py::gil_scoped_release release;
  with_kernels([&](auto kernels) { normal ? kernels.normal(args, team) : kernels.uniform(args, team); });
}

// Asks the system for large pages under a large tensor before it is first written: memory fresh from the system costs a
// fault for each page, which can take longer than the work.
void want_large_pages(void* data, int64_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kLargePage = 2 << 20;
  constexpr int64_t kFresh = 32 << 20;  // malloc hands out smaller pieces again and again
  if (bytes < kFresh) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kLargePage - 1) / kLargePage * kLargePage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / kLargePage * kLargePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

// x transformed into out, by delta or, where it is None, by draws under key. Returns the Fault bits of all.
int nuisance(py::handle x_, py::handle delta_, py::handle out_, const std::vector<int64_t>& codes,
             const std::vector<double>& numbers, uint64_t key, py::handle index_, py::handle draw_, int threads) {
  const TensorView x = cpu(x_, "x"), out = cpu(out_, "out");
  int faults = 0;
  by_dtype(x, [&](auto zero, DType dtype) {
    using T = decltype(zero);
    Program program;
    NuisanceArgs<T> args = nuisance_args<T>(x, dtype, codes, numbers, false, program);
    if (delta_.is_none()) {
      args.index = cpu(index_, "index").data<int64_t>(DType::int64, {args.batch});
      const TensorView draw = cpu(draw_, "draw");
      args.draw = draw.data<int64_t>(DType::int64, {kAny});
      args.draws = draw.size(0);
    } else {
      const TensorView delta = cpu(delta_, "delta");
      args.delta = delta.data<T>(dtype, {kAny, args.batch, args.dim});
      args.draws = delta.size(0);
    }
    args.key = key;
    args.out = out.data<T>(dtype, {args.draws, args.batch, args.channels_out, args.height, args.width});
    const int64_t values = args.draws * args.batch * args.channels_most * args.height * args.width;
    want_large_pages(args.out, values * sizeof(T));
    const int team = threads_for(values, threads);
    const std::unique_ptr<T[]> scratch(new T[team * args.layout.total]);
    args.scratch = scratch.get();
    const std::unique_ptr<uint8_t[]> each(new uint8_t[args.draws * args.batch]);
    args.faults = each.get();
    py::gil_scoped_release release;
    with_kernels([&](auto kernels) { kernels.template nuisance<T>(args, team); });
    for (int64_t i = 0; i < args.draws * args.batch; ++i) faults |= each[i];
  });
  return faults;
}

void nuisance_backward(py::handle grad_, py::handle x_, py::handle delta_, py::handle grad_x_, py::handle grad_delta_,
                       const std::vector<int64_t>& codes, const std::vector<double>& numbers, int threads) {
  const TensorView x = cpu(x_, "x"), grad = cpu(grad_, "grad"), delta = cpu(delta_, "delta"),
                   grad_x = cpu(grad_x_, "grad_x"), grad_delta = cpu(grad_delta_, "grad_delta");
  by_dtype(x, [&](auto zero, DType dtype) {
    using T = decltype(zero);
    Program program;
    NuisanceArgs<T> args = nuisance_args<T>(x, dtype, codes, numbers, true, program);
    args.delta = delta.data<T>(dtype, {kAny, args.batch, args.dim});
    args.draws = delta.size(0);
    args.grad = grad.data<T>(dtype, {args.draws, args.batch, args.channels_out, args.height, args.width});
    args.grad_x = grad_x.data<T>(dtype, {args.batch, args.channels, args.height, args.width});
    args.grad_delta = grad_delta.data<T>(dtype, {args.draws, args.batch, args.dim});
    const int team = threads_for(args.draws * args.batch * args.channels_most * args.height * args.width, threads);
    const std::unique_ptr<T[]> scratch(new T[team * args.layout.total]);
    args.scratch = scratch.get();
    py::gil_scoped_release release;
    with_kernels([&](auto kernels) { kernels.template nuisance_backward<T>(args, team); });
  });
}

void nuisance_sample(py::handle index_, py::handle draw_, py::handle delta_, const std::vector<int64_t>& codes,
                     const std::vector<double>& numbers, uint64_t key, int threads) {
  const Program program = program_of(codes, numbers);
  const TensorView index = cpu(index_, "index"), draw = cpu(draw_, "draw"), delta = cpu(delta_, "delta");
  NuisanceSampleArgs args{};
  args.steps = program.steps.data();
  args.count = static_cast<int64_t>(program.steps.size());
  args.key = key;
  args.samples = index.size(0);
  args.draws = draw.size(0);
  args.dim = program.dim;
  args.index = index.data<int64_t>(DType::int64, {kAny});
  args.draw = draw.data<int64_t>(DType::int64, {kAny});
  args.delta = delta.data<float>(DType::float32, {args.draws, args.samples, args.dim});
  const int team = threads_for(args.draws * args.samples * args.dim, threads);
  py::gil_scoped_release release;
  with_kernels([&](auto kernels) { kernels.nuisance_sample(args, team); });
}

std::vector<uint32_t> philox_words(const std::array<uint32_t, 4>& counter, const std::array<uint32_t, 2>& key) {
  const host::Words words = host::philox({{counter[0], counter[1], counter[2], counter[3]}}, key[0], key[1]);
  return {words.w, words.w + 4};
}

std::vector<std::string> isa_names() {
  std::vector<std::string> names;
  for (Isa isa : supported_isas()) names.emplace_back(name_of(isa));
  return names;
}

}  // namespace
}  // namespace robustperf

PYBIND11_MODULE(_native, m) {
  using namespace robustperf;
  m.doc() = "The native CPU operations of robustperf; call them through robustperf.ops.";
  chosen_isa();  // a wrong ROBUSTPERF_CPU is an error of the import, not of the first operation
  m.def("logit_gap", &logit_gap);
  def_line_search_step<LineSearchOnCpu>(m);
  m.def("halfspace_box_projection", &halfspace_box_projection);
  m.def("best_of_k", &best_of_k);
  m.def("rbf_kernel", &rbf_kernel);
  m.def("draws", &draws);
  m.def("nuisance", &nuisance);
  m.def("nuisance_backward", &nuisance_backward);
  m.def("nuisance_sample", &nuisance_sample);
  m.def("philox", &philox_words, "The four output words of Philox4x32-10.", py::arg("counter"), py::arg("key"));
  m.def("isa", [] { return name_of(chosen_isa()); }, "The instruction set in use.");
  m.def("isas", &isa_names, "The instruction sets that this processor supports.");
}
