#include "launch.hpp"

#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>

#include "cluster.hpp"

namespace robustperf::device {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears it: the next call must not report it again
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

int64_t resident(const char* what, const void* function, int threads, int cluster) {
  static std::mutex mutex;
  static std::map<std::tuple<int, const void*, int, int>, int64_t> known;
  int device = 0, found = 0, processors = 1;
  check(cudaGetDevice(&device), "cudaGetDevice");
  const std::lock_guard<std::mutex> lock(mutex);
  int64_t& count = known[{device, function, threads, cluster}];
  if (count > 0) return count;
  if (cluster > 1) {
    const Launch how(cluster, threads, cluster, nullptr);
    check(cudaOccupancyMaxActiveClusters(&found, function, &how.config), what);
  } else {
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&found, function, threads, 0), what);
    check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  }
  if (found < 1)
    throw std::runtime_error(std::string(what) + ": expected a device with room for " + std::to_string(cluster) +
                             " blocks of " + std::to_string(threads) + " threads side by side, got one without");
  return count = int64_t{found} * processors;
}

bool has_clusters() {
  int device = 0, major = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  return major >= 9;
}

}  // namespace robustperf::device
