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
#include <type_traits>
#include <vector>

#include "../core/philox.hpp"
#include "../cpu/dispatch.hpp"
#include "arguments.hpp"
#include "line_search.hpp"
#include "nuisance.hpp"
#include "tensor_view.hpp"

namespace robustperf {
namespace {

TensorView cpu(py::handle tensor, const char* name) { return TensorView(tensor, name, Device::cpu); }

void logit_gap(py::handle logits_, py::handle label, py::handle gap, double allowance) {
  const TensorView logits = cpu(logits_, "logits");
  const bool wide = logits.is(DType::float64);
  const GapArgs args = gap_args(Device::cpu, logits, wide ? DType::float64 : DType::float32, label, gap, allowance);
  py::gil_scoped_release release;
  with_kernels([&](auto kernels) {
    if (wide)
      kernels.template logit_gap<double>(args);
    else
      kernels.template logit_gap<float>(args);
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

void halfspace_box_projection(py::handle x_, py::handle w, py::handle c, py::handle delta, py::handle feasible,
                              int norm, double lower, double upper, int threads) {
  const TensorView x = cpu(x_, "x");
  by_dtype(x, [&](auto zero, DType dtype) {
    using T = decltype(zero);
    ProjectionArgs<T> args = projection_args<T>(Device::cpu, x, dtype, w, c, delta, feasible, norm, lower, upper);
    const int team = threads_for(args.rows * args.dim, threads);
    const auto scratch = std::make_unique<double[]>(team * projection_scratch(args.dim));
    args.scratch = scratch.get();
    py::gil_scoped_release release;
    with_kernels([&](auto kernels) { kernels.template halfspace_box_projection<T>(args, team); });
  });
}

void best_of_k(py::handle logits_, py::handle target, py::handle loss, py::handle index, int64_t first, bool fresh,
               bool whole_batch, double label_smoothing, int64_t ignore_index, int threads) {
  const TensorView logits = cpu(logits_, "logits");
  by_logits(logits, [&](auto logit, DType dtype) {
    using L = decltype(logit);
    using T = std::conditional_t<std::is_same_v<L, double>, double, float>;
    BestOfKArgs<T> args = best_of_k_args<T>(Device::cpu, logits, dtype, target, loss, index, first, fresh, whole_batch,
                                            label_smoothing, ignore_index);
    // not make_unique, which would write zeros first
    const std::unique_ptr<T[]> losses(new T[args.draws * args.rows]);
    const std::unique_ptr<double[]> totals(new double[args.draws]);
    args.losses = losses.get();
    args.totals = totals.get();
    const int team = threads_for(args.draws * args.rows * args.classes, threads);
    py::gil_scoped_release release;
    with_kernels([&](auto kernels) { kernels.template best_of_k<T, L>(args, team); });
  });
}

// Products of rows of x and supports, with the squares of both, turned into the kernel's values in place.
void rbf_kernel(py::handle products_, py::handle squares_of_x, py::handle squares_of_s, double gamma, int threads) {
  const TensorView products = cpu(products_, "products");
  by_dtype(products, [&](auto zero, DType dtype) {
    using T = decltype(zero);
    const RbfArgs<T> args = rbf_args<T>(Device::cpu, products, dtype, squares_of_x, squares_of_s, gamma);
    const int team = threads_for(args.rows * args.supports, threads);
    py::gil_scoped_release release;
    with_kernels([&](auto kernels) { kernels.template rbf_kernel<T>(args, team); });
  });
}

// The kernel's values added up in float64 with coefficients [machines, supports], to sums [rows, machines].
void rbf_sums(py::handle products_, py::handle squares_of_x, py::handle squares_of_s, double gamma,
              py::handle coefficients_, py::handle sums, int threads) {
  const TensorView products = cpu(products_, "products"), coefficients = cpu(coefficients_, "coefficients");
  by_dtype(products, [&](auto zero, DType dtype) {
    using T = decltype(zero);
    RbfArgs<T> args = rbf_args<T>(Device::cpu, products, dtype, squares_of_x, squares_of_s, gamma);
    args.coefficients = coefficients.data<double>(DType::float64, {kAny, args.supports});
    args.machines = coefficients.size(0);
    args.sums = cpu(sums, "sums").data<double>(DType::float64, {args.rows, args.machines});
    const int team = threads_for(args.rows * args.supports, threads);
    py::gil_scoped_release release;
    with_kernels([&](auto kernels) { kernels.template rbf_sums<T>(args, team); });
  });
}

void draws(py::handle index, py::handle draw, py::handle out, uint64_t key, bool normal, int threads) {
  DrawArgs args = draw_args(Device::cpu, index, draw, out);
  args.key = key;
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

// Lays out what a thread needs beside the tensors of a nuisance program.
template <typename T>
void lay_out_scratch(NuisanceArgs<T>& args, const Program& program, bool back) {
  int64_t total = 0;
  const auto place = [&](bool wanted, int64_t size) {
    const int64_t here = total;
    if (wanted) total += (size + 15) / 16 * 16;  // 64 bytes
    return here;
  };
  const int64_t image = args.channels_most * args.height * args.width;
  const int64_t quads = (args.channels_most + 3) / 4 * 4 * (args.height + 3) * (args.width + 3);
  args.layout.padded = place(program.warps || program.blurs, quads);
  args.layout.image = place(program.blurs, image);
  args.layout.tiles = place(true, (back ? args.count : 1) * args.channels_most * kTile);
  args.layout.delta = place(!back, args.dim);
  args.layout.padded_grad = place(back && program.warps, quads);
  args.layout.grads = place(back, image);
  args.layout.inputs = place(back, args.count * image);
  args.layout.total = total;
}

// x transformed into out, by delta or, where it is None, by draws under key. Returns the Fault bits of all.
int nuisance(py::handle x_, py::handle delta_, py::handle out_, const std::vector<int64_t>& codes,
             const std::vector<double>& numbers, uint64_t key, py::handle index_, py::handle draw_, int threads) {
  const TensorView x = cpu(x_, "x"), out = cpu(out_, "out");
  int faults = 0;
  by_dtype(x, [&](auto zero, DType dtype) {
    using T = decltype(zero);
    Program program;
    NuisanceArgs<T> args = nuisance_args<T>(x, dtype, codes, numbers, program);
    lay_out_scratch(args, program, false);
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
    NuisanceArgs<T> args = nuisance_args<T>(x, dtype, codes, numbers, program);
    lay_out_scratch(args, program, true);
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

void nuisance_sample(py::handle index, py::handle draw, py::handle delta, const std::vector<int64_t>& codes,
                     const std::vector<double>& numbers, uint64_t key, int threads) {
  const Program program = program_of(codes, numbers);
  NuisanceSampleArgs args = sample_args(Device::cpu, program, index, draw, delta);
  args.key = key;
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
  m.def("rbf_sums", &rbf_sums);
  m.def("draws", &draws);
  m.def("nuisance", &nuisance);
  m.def("nuisance_backward", &nuisance_backward);
  m.def("nuisance_sample", &nuisance_sample);
  m.def("philox", &philox_words, "The four output words of Philox4x32-10.", py::arg("counter"), py::arg("key"));
  m.def("isa", [] { return name_of(chosen_isa()); }, "The instruction set in use.");
  m.def("isas", &isa_names, "The instruction sets that this processor supports.");
}
