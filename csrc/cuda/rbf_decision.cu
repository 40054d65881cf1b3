// The RBF kernel's values from a matrix product, in place: one block per row.
#include "../core/rbf_decision.hpp"

#include "launch.hpp"
#include "vector_access.hpp"

namespace robustperf::device {
namespace {

constexpr int kThreads = 256;

template <int kVector, typename T>
__global__ void __launch_bounds__(kThreads) rbf_values_global(const __grid_constant__ RbfDecisionArgs<T> args) {
  const T gamma = static_cast<T>(args.gamma);
  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    T* const products = args.products + row * args.supports;
    const T square = args.squares_of_x[row];
    for (int64_t i = threadIdx.x * kVector; i < args.supports; i += kThreads * kVector) {
      Vector<T, kVector> value = read<kVector>(products + i);
      const Vector<T, kVector> squares = read<kVector>(args.squares_of_s + i);
#pragma unroll
      for (int v = 0; v < kVector; ++v) value[v] = rbf_value(value[v], square, squares[v], gamma);
      write(products + i, value);
    }
  }
}

}  // namespace

template <typename T>
void rbf_values(const RbfDecisionArgs<T>& args, Target target) {
  if (args.rows == 0 || args.supports == 0) return;
  const auto function = rows_of_16_bytes(args.supports, args.products, args.squares_of_s)
                            ? rbf_values_global<16 / sizeof(T), T>
                            : rbf_values_global<1, T>;
  launch("rbf_decision", function, args.rows, kThreads, 1, target.stream, args);
}

template void rbf_values(const RbfDecisionArgs<float>&, Target);
template void rbf_values(const RbfDecisionArgs<double>&, Target);

}  // namespace robustperf::device
