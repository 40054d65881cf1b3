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

enum class Device { cpu, cuda };
enum class DType { float32, float64, int64, boolean };

// torch's own objects and the names of its attributes, looked up once: identities are compared, not texts.
struct Torch {
  static constexpr const char* kDTypes[] = {"float32", "float64", "int64", "bool"};

  py::object dtypes[4];
  py::str is_cpu{"is_cpu"}, is_cuda{"is_cuda"}, dtype{"dtype"}, shape{"shape"}, stride{"stride"}, data_ptr{"data_ptr"};

  Torch() {
    const py::module_ torch = py::module_::import("torch");
    for (int i = 0; i < 4; ++i) dtypes[i] = torch.attr(kDTypes[i]);
  }

  static const Torch& get() {
    static const Torch* torch = new Torch;  // never destroyed: Python may be gone by then
    return *torch;
  }
};

inline std::string name_of(DType dtype) { return std::string("torch.") + Torch::kDTypes[static_cast<int>(dtype)]; }

// Any size is right where a shape says kAny.
constexpr int64_t kAny = -1;

inline std::string text_of(std::initializer_list<int64_t> shape) {
  std::string text = "[";
  for (int64_t size : shape) text += (text.size() > 1 ? ", " : "") + (size == kAny ? "any" : std::to_string(size));
  return text + "]";
}

// One argument of a binding: its name is for the errors.
class TensorView {
 public:
  TensorView(py::handle tensor, const char* name, Device device) : tensor_(tensor), name_(name) {
    const Torch& torch = Torch::get();
    if (!attribute(device == Device::cpu ? torch.is_cpu : torch.is_cuda).is(py::bool_(true)))
      throw py::value_error(where() + "expected a tensor on " + (device == Device::cpu ? "cpu" : "cuda") +
                            ", got one on " + std::string(py::str(tensor.attr("device"))));
    dtype_ = attribute(torch.dtype);
    const py::tuple shape = attribute(torch.shape), strides = call(torch.stride);
    dims_ = shape.size();
    if (dims_ > kMaxDims) throw py::value_error(where() + "expected at most 5 dimensions, got " + text());
    int64_t expected = 1;
    for (size_t i = dims_; i-- > 0;) {
      shape_[i] = shape[i].cast<int64_t>();
      if (shape_[i] != 1 && strides[i].cast<int64_t>() != expected) contiguous_ = false;
      expected *= shape_[i];
    }
    if (expected == 0) contiguous_ = true;
    data_ = reinterpret_cast<void*>(call(torch.data_ptr).cast<uintptr_t>());
  }

  int64_t size(size_t dim) const { return shape_[dim]; }
  bool is(DType dtype) const { return dtype_.is(Torch::get().dtypes[static_cast<int>(dtype)]); }

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
                            ", got " + (contiguous_ ? "" : "non-contiguous ") + std::string(py::str(dtype_)) + " " +
                            text());
    return static_cast<T*>(data_);
  }

 private:
  static constexpr size_t kMaxDims = 5;

  py::object attribute(const py::str& name) const {
    PyObject* value = PyObject_GetAttr(tensor_.ptr(), name.ptr());
    if (value == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(value);
  }
  py::object call(const py::str& method) const {
    PyObject* value = PyObject_CallMethodNoArgs(tensor_.ptr(), method.ptr());
    if (value == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(value);
  }

  std::string where() const { return std::string(name_) + ": "; }
  std::string text() const { return py::str(py::list(tensor_.attr("shape"))); }

  py::handle tensor_;
  const char* name_;
  py::object dtype_;
  void* data_ = nullptr;
  size_t dims_ = 0;
  std::array<int64_t, kMaxDims> shape_{};
  bool contiguous_ = true;
};

}  // namespace robustperf
