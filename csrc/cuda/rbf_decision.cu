// The kernel's values of an RBF machine from a product of matrices, in place: a block takes a row.
#include "../core/rbf.hpp"

#include "launch.hpp"
#include "pack.hpp"

namespace robustperf::cuda {
namespace {

using namespace robustperf::ROBUSTPERF_ISA;

constexpr int kThreads = 256;

template <int kVector, typename T>
__global__ void __launch_bounds__(kThreads) rbf_kernel_values(const __grid_constant__ RbfArgs<T> args) {
  const T gamma = static_cast<T>(args.gamma);
  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    T* const products = args.products + row * args.supports;
    const T square = args.squares_of_x[row];
    for (int64_t i = threadIdx.x * kVector; i < args.supports; i += kThreads * kVector) {
      Pack<T, kVector> value = read<kVector>(products + i);
      const Pack<T, kVector> squares = read<kVector>(args.squares_of_s + i);
#pragma unroll
      for (int v = 0; v < kVector; ++v) value[v] = rbf_value(value[v], square, squares[v], gamma);
      write(products + i, value);
    }
  }
}

}  // namespace

template <typename T>
void rbf_kernel(const RbfArgs<T>& args, cudaStream_t stream) {
  if (args.rows == 0 || args.supports == 0) return;
  const auto kernel = rows_of_16_bytes(args.supports, args.products, args.squares_of_s)
                          ? rbf_kernel_values<16 / sizeof(T), T>
                          : rbf_kernel_values<1, T>;
  launch("rbf_decision", kernel, args.rows, kThreads, 1, stream, args);
}

template void rbf_kernel<float>(const RbfArgs<float>&, cudaStream_t);
template void rbf_kernel<double>(const RbfArgs<double>&, cudaStream_t);

}  // namespace robustperf::cuda
