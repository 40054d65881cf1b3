#include "../core/rbf.hpp"

#include "kernels.hpp"
#include "lanes.hpp"
#include "parallel.hpp"

namespace robustperf::ROBUSTPERF_ISA {

template <typename T>
void Kernels::rbf_kernel(const RbfArgs<T>& args, int threads) {
  using V = typename Full<T>::Register;
  constexpr int64_t kStep = kWidthOf<T>;
  const int64_t whole = args.supports / kStep * kStep;
  const T gamma = static_cast<T>(args.gamma);
  parallel_rows(args.rows, threads, [&](int64_t row) {
    T* const products = args.products + row * args.supports;
    const T square = args.squares_of_x[row];
    for (int64_t i = 0; i < whole; i += kStep)
      write(products + i, rbf_value(read(products + i), V{} + square, read(args.squares_of_s + i), gamma));
    for (int64_t i = whole; i < args.supports; ++i)
      products[i] = rbf_value(products[i], square, args.squares_of_s[i], gamma);
  });
}

template void Kernels::rbf_kernel<float>(const RbfArgs<float>&, int);
template void Kernels::rbf_kernel<double>(const RbfArgs<double>&, int);

}  // namespace robustperf::ROBUSTPERF_ISA
