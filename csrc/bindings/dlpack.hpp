// The few definitions of DLPack 1 (https://github.com/dmlc/dlpack) that it takes to read a tensor by one call of a C
// function, which torch has offered since 2.10.
#pragma once

#include <cstdint>

namespace robustperf::dlpack {

struct Version {
  uint32_t major, minor;
};

struct Device {
  int32_t type, id;
};
constexpr int32_t kCpu = 1, kCuda = 2;

struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};
constexpr uint8_t kInt = 0, kFloat = 2, kBFloat = 4, kBool = 6;

struct Tensor {
  void* data;
  Device device;
  int32_t dims;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};

// What the capsule `torch.Tensor.__dlpack_c_exchange_api__` holds.
struct Exchange {
  Version version;
  Exchange* previous;
  void* allocate;
  void* managed_from_object;
  void* managed_to_object;
  int (*view)(void* object, Tensor* view);  // non-owning; -1 with a Python error
  void* current_stream;
};
constexpr const char* kAttribute = "__dlpack_c_exchange_api__";
constexpr const char* kCapsule = "dlpack_exchange_api";

}  // namespace robustperf::dlpack
