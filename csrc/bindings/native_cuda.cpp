// robustperf._native_cuda: the GPU operations.
#include <pybind11/pybind11.h>

#include "../cuda/kernels.hpp"
#include "line_search.hpp"

namespace robustperf {
namespace {

struct LineSearchOnGpu {
  static constexpr Device kDevice = Device::cuda;
  template <typename T, typename L>
  void run(const LineSearchArgs<T>& args, int64_t stream) {
    py::gil_scoped_release release;
    cuda::line_search_step<T, L>(args, reinterpret_cast<cudaStream_t>(stream));
  }
};

}  // namespace
}  // namespace robustperf

PYBIND11_MODULE(_native_cuda, m) {
  using namespace robustperf;
  m.doc() = "The GPU operations of robustperf; call them through robustperf.ops.";
  def_line_search_step<LineSearchOnGpu>(m);
  m.def("devices", [] {
    int count = 0;
    cuda::check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
    return count;
  }, "The number of GPUs that this module can use; raises RuntimeError with the driver's reason.");
}
