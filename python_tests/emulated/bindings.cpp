// The GPU module's bindings, for tensors on the CPU.
#include "../../csrc/bindings/dlpack.hpp"

#define kCuda kCpu
#include "../../csrc/bindings/native_cuda.cpp"
