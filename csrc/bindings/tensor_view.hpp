// A torch tensor as pointer, shape and strides, read through its Python interface: nothing here is built against torch,
// so one build serves every version of it.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "../core/half.hpp"
#include "dlpack.hpp"

namespace robustperf {

namespace py = pybind11;

enum class Device { cpu, cuda };
enum class DType { float32, float64, int64, boolean, bfloat16, float16, other };

// torch's objects and the names of its attributes, looked up once, so that identities are compared and not strings.
struct Torch {
  static constexpr const char* kDTypes[] = {"float32", "float64", "int64", "bool", "bfloat16", "float16"};
  static constexpr int kCount = static_cast<int>(DType::other);

  py::object tensor, dtypes[kCount];
  py::str is_cpu{"is_cpu"}, is_cuda{"is_cuda"}, dtype{"dtype"}, shape{"shape"}, stride{"stride"}, data_ptr{"data_ptr"};
  const dlpack::Exchange* exchange = nullptr;  // null if this torch has none

  Torch() {
    const py::module_ torch = py::module_::import("torch");
    tensor = torch.attr("Tensor");
    for (int i = 0; i < kCount; ++i) dtypes[i] = torch.attr(kDTypes[i]);
    const py::object capsule = py::getattr(tensor, dlpack::kAttribute, py::none());
    if (PyCapsule_IsValid(capsule.ptr(), dlpack::kCapsule))
      exchange = static_cast<const dlpack::Exchange*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::kCapsule));
    if (exchange != nullptr && (exchange->version.major != 1 || exchange->view == nullptr)) exchange = nullptr;
  }

  static const Torch& get() {
    static const Torch* torch = new Torch;  // never destroyed: Python may have ended by then
    return *torch;
  }
};

inline std::string name_of(DType dtype) { return std::string("torch.") + Torch::kDTypes[static_cast<int>(dtype)]; }

// The dtype of tensors of T.
template <typename T>
constexpr DType kDTypeOf = DType::other;
template <>
inline constexpr DType kDTypeOf<float> = DType::float32;
template <>
inline constexpr DType kDTypeOf<double> = DType::float64;
template <>
inline constexpr DType kDTypeOf<int64_t> = DType::int64;
template <>
inline constexpr DType kDTypeOf<bool> = DType::boolean;
template <>
inline constexpr DType kDTypeOf<BFloat16> = DType::bfloat16;
template <>
inline constexpr DType kDTypeOf<Float16> = DType::float16;

// In an expected shape: any size.
constexpr int64_t kAny = -1;

inline std::string text_of(std::initializer_list<int64_t> shape) {
  std::string text = "[";
  for (int64_t size : shape) text += (text.size() > 1 ? ", " : "") + (size == kAny ? "any" : std::to_string(size));
  return text + "]";
}

// One argument of a binding. Errors quote its name.
class TensorView {
 public:
  TensorView(py::handle tensor, const char* name, Device device) : tensor_(tensor), name_(name) {
    if (!read_by_dlpack(device)) read_by_attributes(device);
    // torch's fake tensors have a device and no data
    if (data_ == nullptr && size_ != 0) throw py::value_error(where() + "expected a tensor with data, got none");
  }

  int64_t size(size_t dim) const { return shape_[dim]; }
  bool is(DType dtype) const { return dtype_ == dtype; }

  // The data, after a check of the dtype, the shape and the layout.
  template <typename T>
  T* data(std::initializer_list<int64_t> shape) const {
    constexpr DType dtype = kDTypeOf<T>;
    static_assert(dtype != DType::other);
    bool same = dims_ == shape.size();
    size_t i = 0;
    for (int64_t size : shape) {
      if (!same) break;
      same = size == kAny || size == shape_[i];
      ++i;
    }
    if (!same || !is(dtype) || !contiguous_)
      throw py::value_error(where() + "expected a contiguous " + name_of(dtype) + " tensor of shape " + text_of(shape) +
                            ", got " + (contiguous_ ? "" : "non-contiguous ") +
                            std::string(py::str(tensor_.attr("dtype"))) + " " + text());
    return static_cast<T*>(data_);
  }

 private:
  static constexpr size_t kMaxDims = 5;

  // True for a plain tensor on the device. Subclasses, whose attributes may differ from their memory, and errors go
  // through the attributes.
  bool read_by_dlpack(Device device) {
    const Torch& torch = Torch::get();
    if (torch.exchange == nullptr || !py::type::handle_of(tensor_).is(torch.tensor)) return false;
    dlpack::Tensor view;
    if (torch.exchange->view(tensor_.ptr(), &view) != 0) {
      PyErr_Clear();
      return false;
    }
    if (view.device.type != (device == Device::cpu ? dlpack::kCpu : dlpack::kCuda)) return false;
    dtype_ = dtype_of(view.dtype);
    read(view.dims, view.shape, view.strides);
    data_ = static_cast<char*>(view.data) + view.byte_offset;
    return true;
  }

  void read_by_attributes(Device device) {
    const Torch& torch = Torch::get();
    if (!attribute(device == Device::cpu ? torch.is_cpu : torch.is_cuda).is(py::bool_(true)))
      throw py::value_error(where() + "expected a tensor on " + (device == Device::cpu ? "cpu" : "cuda") +
                            ", got one on " + std::string(py::str(tensor_.attr("device"))));
    const py::object dtype = attribute(torch.dtype);
    for (int i = 0; i < Torch::kCount; ++i)
      if (dtype.is(torch.dtypes[i])) dtype_ = static_cast<DType>(i);
    const py::tuple shape = attribute(torch.shape), strides = call(torch.stride);
    read(shape.size(), shape, strides);
    data_ = reinterpret_cast<void*>(call(torch.data_ptr).cast<uintptr_t>());
  }

  template <typename Sizes>
  void read(size_t dims, const Sizes& shape, const Sizes& strides) {
    dims_ = dims;
    if (dims_ > kMaxDims) throw py::value_error(where() + "expected at most 5 dimensions, got " + text());
    for (size_t i = dims_; i-- > 0;) {
      shape_[i] = integer(shape[i]);
      if (shape_[i] != 1 && integer(strides[i]) != size_) contiguous_ = false;
      size_ *= shape_[i];
    }
    if (size_ == 0) contiguous_ = true;
  }
  static int64_t integer(int64_t value) { return value; }
  static int64_t integer(const py::handle& value) { return value.cast<int64_t>(); }

  static DType dtype_of(dlpack::DataType type) {
    if (type.lanes != 1) return DType::other;
    switch (type.code << 8 | type.bits) {
      case dlpack::kFloat << 8 | 32:
        return DType::float32;
      case dlpack::kFloat << 8 | 64:
        return DType::float64;
      case dlpack::kFloat << 8 | 16:
        return DType::float16;
      case dlpack::kBFloat << 8 | 16:
        return DType::bfloat16;
      case dlpack::kInt << 8 | 64:
        return DType::int64;
      case dlpack::kBool << 8 | 8:
        return DType::boolean;
      default:
        return DType::other;
    }
  }

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
  DType dtype_ = DType::other;
  void* data_ = nullptr;
  size_t dims_ = 0;
  std::array<int64_t, kMaxDims> shape_{};
  int64_t size_ = 1;
  bool contiguous_ = true;
};

// Calls run(zero) with a zero of x's dtype, of float unless x is of double.
template <typename Run>
void by_dtype(const TensorView& x, Run&& run) {
  if (x.is(DType::float64))
    run(double{});
  else
    run(float{});
}

// The same for logits, which may be halves.
template <typename Run>
void by_logit_dtype(const TensorView& logits, Run&& run) {
  if (logits.is(DType::bfloat16))
    run(BFloat16{});
  else if (logits.is(DType::float16))
    run(Float16{});
  else
    by_dtype(logits, run);
}

}  // namespace robustperf
