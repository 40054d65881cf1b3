// robustperf._native_cuda: the ops on a GPU. They are queued on the stream that is given; the host does not wait.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "../cuda/check.hpp"
#include "ops.hpp"

namespace robustperf {
namespace {

struct Gpu {
  static constexpr Device kDevice = Device::cuda;
  static constexpr const char* kWhere = "stream";
  using Key = py::object;

  // An integer, or a tensor that holds its bits.
  template <typename Args>
  static void set_key(Args& args, const Key& key) {
    if (py::isinstance<py::int_>(key))
      args.key = key.cast<uint64_t>();
    else
      args.device_key = view<Gpu>(key, "key").data<int64_t>({});
  }

  template <typename Run>
  static void run(int64_t, int64_t stream, Run&& run) {
    py::gil_scoped_release release;
    run(device::Target{reinterpret_cast<cudaStream_t>(stream)});
  }
};

// The number of GPUs; throws if the driver cannot run this module.
int device_count() {
  int count = 0, driver = 0;
  device::check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  device::check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  if (driver < 12010)
    throw std::runtime_error("the driver is for CUDA " + std::to_string(driver / 1000) + "." +
                             std::to_string(driver % 1000 / 10) + ": driver version is insufficient for CUDA runtime " +
                             "version 12.1, whose kernels take more than 4 KiB of arguments");
  return count;
}

}  // namespace
}  // namespace robustperf

PYBIND11_MODULE(_native_cuda, module) {
  using namespace robustperf;
  module.doc() = "The GPU ops of robustperf; call them through robustperf.ops.";
  def_ops<Gpu>(module);
  module.def("devices", &device_count,
             "The number of GPUs that this module can use; raises RuntimeError with the driver's reason.");
}
