// robustperf._native_cuda: the GPU operations. What is launched goes on the stream that is handed in, and nothing
// waits.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "../cuda/kernels.hpp"
#include "arguments.hpp"
#include "line_search.hpp"
#include "nuisance.hpp"

namespace robustperf {
namespace {

constexpr Device kDevice = Device::cuda;

cudaStream_t stream_of(int64_t stream) { return reinterpret_cast<cudaStream_t>(stream); }

TensorView gpu(py::handle tensor, const char* name) { return TensorView(tensor, name, kDevice); }

void logit_gap(py::handle logits_, py::handle label, py::handle gap, double allowance, int64_t stream) {
  const TensorView logits = gpu(logits_, "logits");
  by_logits(logits, [&](auto logit, DType dtype) {
    const GapArgs args = gap_args(kDevice, logits, dtype, label, gap, allowance);
    py::gil_scoped_release release;
    cuda::logit_gap<decltype(logit)>(args, stream_of(stream));
  });
}

struct LineSearchOnGpu {
  static constexpr Device kDevice = robustperf::kDevice;
  template <typename T, typename L>
  void run(const LineSearchArgs<T>& args, int64_t stream) {
    py::gil_scoped_release release;
    cuda::line_search_step<T, L>(args, stream_of(stream));
  }
};

void halfspace_box_projection(py::handle x_, py::handle w, py::handle c, py::handle delta, py::handle feasible,
                              int norm, double lower, double upper, int64_t stream) {
  const TensorView x = gpu(x_, "x");
  by_dtype(x, [&](auto zero, DType dtype) {
    using T = decltype(zero);
    const ProjectionArgs<T> args = projection_args<T>(kDevice, x, dtype, w, c, delta, feasible, norm, lower, upper);
    py::gil_scoped_release release;
    cuda::halfspace_box_projection<T>(args, stream_of(stream));
  });
}

// losses, done: scratch for whole_batch, None otherwise.
void best_of_k(py::handle logits_, py::handle target, py::handle loss, py::handle index, int64_t first, bool fresh,
               bool whole_batch, double label_smoothing, int64_t ignore_index, py::handle losses, py::handle done,
               int64_t stream) {
  const TensorView logits = gpu(logits_, "logits");
  by_logits(logits, [&](auto logit, DType dtype) {
    using L = decltype(logit);
    using T = std::conditional_t<std::is_same_v<L, double>, double, float>;
    BestOfKArgs<T> args = best_of_k_args<T>(kDevice, logits, dtype, target, loss, index, first, fresh, whole_batch,
                                            label_smoothing, ignore_index);
    if (whole_batch) {
      args.losses =
          gpu(losses, "losses")
              .data<T>(sizeof(T) == sizeof(double) ? DType::float64 : DType::float32, {args.draws, args.rows});
      args.done = reinterpret_cast<unsigned*>(gpu(done, "done").data<int64_t>(DType::int64, {1}));
    }
    py::gil_scoped_release release;
    cuda::best_of_k<T, L>(args, stream_of(stream));
  });
}

void rbf_kernel(py::handle products_, py::handle squares_of_x, py::handle squares_of_s, double gamma, int64_t stream) {
  const TensorView products = gpu(products_, "products");
  by_dtype(products, [&](auto zero, DType dtype) {
    using T = decltype(zero);
    const RbfArgs<T> args = rbf_args<T>(kDevice, products, dtype, squares_of_x, squares_of_s, gamma);
    py::gil_scoped_release release;
    cuda::rbf_kernel<T>(args, stream_of(stream));
  });
}

// An integer, or a tensor that holds its bits.
template <typename Args>
void set_key(Args& args, py::handle key) {
  if (py::isinstance<py::int_>(key))
    args.key = key.cast<uint64_t>();
  else
    args.device_key = gpu(key, "key").data<int64_t>(DType::int64, {});
}

void draws(py::handle index, py::handle draw, py::handle out, py::handle key, bool normal, int64_t stream) {
  DrawArgs args = draw_args(kDevice, index, draw, out);
  set_key(args, key);
  py::gil_scoped_release release;
  cuda::draws(args, normal, stream_of(stream));
}

void nuisance_sample(py::handle index, py::handle draw, py::handle delta, const std::vector<int64_t>& codes,
                     const std::vector<double>& numbers, py::handle key, int64_t stream) {
  const Program program = program_of(codes, numbers);
  NuisanceSampleArgs args = sample_args(kDevice, program, index, draw, delta);
  set_key(args, key);
  py::gil_scoped_release release;
  cuda::nuisance_sample(args, stream_of(stream));
}

// Scratch is a tensor of int64, eight bytes a number.
template <typename T>
void set_scratch(T*& to, py::handle scratch_, int64_t bytes) {
  const TensorView scratch = gpu(scratch_, "scratch");
  to = reinterpret_cast<T*>(scratch.data<int64_t>(DType::int64, {kAny}));
  if (scratch.size(0) * 8 < bytes)
    throw py::value_error("scratch: expected at least " + std::to_string(bytes) + " bytes, got " +
                          std::to_string(scratch.size(0) * 8));
}

// The arguments of a program for images x and draws delta, and how much scratch it wants.
template <typename T>
NuisanceArgs<T> nuisance_args(const TensorView& x, DType dtype, py::handle delta_, const std::vector<int64_t>& codes,
                              const std::vector<double>& numbers, Program& program) {
  NuisanceArgs<T> args = nuisance_args<T>(x, dtype, codes, numbers, program);
  const TensorView delta = gpu(delta_, "delta");
  args.delta = delta.data<T>(dtype, {kAny, args.batch, args.dim});
  args.draws = delta.size(0);
  return args;
}

// Numbers of int64 that `nuisance` or, `back`, `nuisance_backward` wants as scratch.
int64_t nuisance_scratch(py::handle x_, py::handle delta, const std::vector<int64_t>& codes,
                         const std::vector<double>& numbers, bool back) {
  const TensorView x = gpu(x_, "x");
  int64_t bytes = 0;
  by_dtype(x, [&](auto zero, DType dtype) {
    Program program;
    const auto args = nuisance_args<decltype(zero)>(x, dtype, delta, codes, numbers, program);
    bytes = cuda::nuisance_scratch(args, back);
  });
  return (bytes + 7) / 8;
}

void nuisance(py::handle x_, py::handle delta, py::handle out, py::handle scratch, const std::vector<int64_t>& codes,
              const std::vector<double>& numbers, int64_t stream) {
  const TensorView x = gpu(x_, "x");
  by_dtype(x, [&](auto zero, DType dtype) {
    using T = decltype(zero);
    Program program;
    NuisanceArgs<T> args = nuisance_args<T>(x, dtype, delta, codes, numbers, program);
    args.out = gpu(out, "out").data<T>(dtype, {args.draws, args.batch, args.channels_out, args.height, args.width});
    set_scratch(args.scratch, scratch, cuda::nuisance_scratch(args, false));
    py::gil_scoped_release release;
    cuda::nuisance(args, stream_of(stream));
  });
}

// grad_x: of each draw, [draws, batch, channels, height, width].
void nuisance_backward(py::handle grad, py::handle x_, py::handle delta, py::handle grad_x, py::handle grad_delta,
                       py::handle scratch, const std::vector<int64_t>& codes, const std::vector<double>& numbers,
                       int64_t stream) {
  const TensorView x = gpu(x_, "x");
  by_dtype(x, [&](auto zero, DType dtype) {
    using T = decltype(zero);
    Program program;
    NuisanceArgs<T> args = nuisance_args<T>(x, dtype, delta, codes, numbers, program);
    args.grad = gpu(grad, "grad").data<T>(dtype, {args.draws, args.batch, args.channels_out, args.height, args.width});
    args.grad_x =
        gpu(grad_x, "grad_x").data<T>(dtype, {args.draws, args.batch, args.channels, args.height, args.width});
    args.grad_delta = gpu(grad_delta, "grad_delta").data<T>(dtype, {args.draws, args.batch, args.dim});
    set_scratch(args.scratch, scratch, cuda::nuisance_scratch(args, true));
    py::gil_scoped_release release;
    cuda::nuisance_backward(args, stream_of(stream));
  });
}

}  // namespace
}  // namespace robustperf

PYBIND11_MODULE(_native_cuda, m) {
  using namespace robustperf;
  m.doc() = "The GPU operations of robustperf; call them through robustperf.ops.";
  m.def("logit_gap", &logit_gap);
  def_line_search_step<LineSearchOnGpu>(m);
  m.def("halfspace_box_projection", &halfspace_box_projection);
  m.def("best_of_k", &best_of_k);
  m.def("rbf_kernel", &rbf_kernel);
  m.def("draws", &draws);
  m.def("nuisance_sample", &nuisance_sample);
  m.def("nuisance_scratch", &nuisance_scratch);
  m.def("nuisance", &nuisance);
  m.def("nuisance_backward", &nuisance_backward);
  m.def(
      "devices",
      [] {
        int count = 0, driver = 0;
        cuda::check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
        cuda::check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
        if (driver < 12010)
          throw std::runtime_error("the driver is for CUDA " + std::to_string(driver / 1000) + "." +
                                   std::to_string(driver % 1000 / 10) +
                                   ": driver version is insufficient for CUDA runtime " +
                                   "version 12.1, whose kernels take more than 4 KiB of arguments");
        return count;
      },
      "The number of GPUs that this module can use; raises RuntimeError with the driver's reason.");
}
