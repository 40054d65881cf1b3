// What the bindings of all ops share.
//
// A Backend, Cpu in native.cpp and Gpu in native_cuda.cpp, has
//   kDevice  the device of its tensors,
//   kWhere   the name of an op's last argument: how many threads, or which stream,
//   Key      the type of a key, and set_key(args, key),
//   run(elements, where, run)  which calls run(target) without the GIL, for so many elements of work.
#pragma once

#include "tensor_view.hpp"

namespace robustperf {

template <typename Backend>
TensorView view(py::handle tensor, const char* name) {
  return TensorView(tensor, name, Backend::kDevice);
}

// An index out of range would read or write other memory. For tensors on the CPU: the host does not wait for a GPU.
inline void check_range(const char* name, const int64_t* values, int64_t count, int64_t end) {
  for (int64_t i = 0; i < count; ++i)
    if (values[i] < 0 || values[i] >= end)
      throw py::value_error(std::string(name) + ": expected numbers in 0.." + std::to_string(end - 1) + ", got " +
                            std::to_string(values[i]));
}

}  // namespace robustperf
