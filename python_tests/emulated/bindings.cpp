// The GPU module's bindings as they are, for tensors of the CPU.
#include "../../csrc/bindings/dlpack.hpp"

#define kCuda kCpu
#include "../../csrc/bindings/native_cuda.cpp"
