#include "launch.hpp"

#include <stdexcept>
#include <string>

#include "cluster.hpp"

namespace robustperf::cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // told here, not once more by the next call
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

bool has_clusters() {
  int device = 0, major = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  return major >= 9;
}

}  // namespace robustperf::cuda
