// A torch tensor as pointer, shape and strides, read through its Python interface: nothing here is built against torch,
// so one build serves every version of it.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace robustperf {

namespace py = pybind11;

enum class DType { float32, float64, int64, boolean };

inline const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::float32: return "torch.float32";
    case DType::float64: return "torch.float64";
    case DType::int64: return "torch.int64";
    default: return "torch.bool";
  }
}

// Any size is right where a shape says kAny.
constexpr int64_t kAny = -1;

inline std::string text_of(std::initializer_list<int64_t> shape) {
  std::string text = "[";
  for (int64_t size : shape) text += (text.size() > 1 ? ", " : "") + (size == kAny ? "any" : std::to_string(size));
  return text + "]";
}

// The arguments of one binding: their names for the errors, and the one device that all must be on.
class TensorView {
 public:
  TensorView(py::handle tensor, const char* name, const char* device) : tensor_(tensor), name_(name) {
    const std::string found = py::str(tensor.attr("device").attr("type"));
    if (found != device) throw py::value_error(where() + "expected a tensor on " + device + ", got one on " + found);
    dtype_ = py::str(tensor.attr("dtype"));
    const py::tuple shape = tensor.attr("shape");
    const py::tuple strides = tensor.attr("stride")();
    dims_ = shape.size();
    if (dims_ > kMaxDims) throw py::value_error(where() + "expected at most 4 dimensions, got " + text());
    int64_t expected = 1;
    for (size_t i = dims_; i-- > 0;) {
      shape_[i] = shape[i].cast<int64_t>();
      if (shape_[i] != 1 && strides[i].cast<int64_t>() != expected) contiguous_ = false;
      expected *= shape_[i];
    }
    if (expected == 0) contiguous_ = true;
    data_ = reinterpret_cast<void*>(tensor.attr("data_ptr")().cast<uintptr_t>());
  }

  int64_t size(size_t dim) const { return shape_[dim]; }
  bool is(DType dtype) const { return dtype_ == name_of(dtype); }

  // The data, after a check of the dtype, the shape and the layout.
  template <typename T>
  T* data(DType dtype, std::initializer_list<int64_t> shape) const {
    bool same = dims_ == shape.size();
    size_t i = 0;
    for (int64_t size : shape) {
      if (!same) break;
      same = size == kAny || size == shape_[i];
      ++i;
    }
    if (!same || !is(dtype) || !contiguous_)
      throw py::value_error(where() + "expected a contiguous " + name_of(dtype) + " tensor of shape " + text_of(shape) +
                            ", got " + (contiguous_ ? "" : "non-contiguous ") + dtype_ + " " + text());
    return static_cast<T*>(data_);
  }

 private:
  static constexpr size_t kMaxDims = 4;

  std::string where() const { return std::string(name_) + ": "; }
  std::string text() const { return py::str(py::list(tensor_.attr("shape"))); }

  py::handle tensor_;
  const char* name_;
  std::string dtype_;
  void* data_ = nullptr;
  size_t dims_ = 0;
  std::array<int64_t, kMaxDims> shape_{};
  bool contiguous_ = true;
};

}  // namespace robustperf
