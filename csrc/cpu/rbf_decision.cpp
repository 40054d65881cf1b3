#include "../core/rbf.hpp"

#include <algorithm>

#include "kernels.hpp"
#include "lanes.hpp"
#include "parallel.hpp"

namespace robustperf::ROBUSTPERF_ISA {
namespace {

// Of one row, into `values`, which may be its products.
template <typename T>
void row_values(const T* products, T square_of_x, const T* squares_of_s, T gamma, int64_t count, T* values) {
  using V = typename Full<T>::Register;
  const int64_t whole = count / kWidthOf<T> * kWidthOf<T>;
  for (int64_t i = 0; i < whole; i += kWidthOf<T>)
    write(values + i, rbf_value(read(products + i), V{} + square_of_x, read(squares_of_s + i), gamma));
  for (int64_t i = whole; i < count; ++i) values[i] = rbf_value(products[i], square_of_x, squares_of_s[i], gamma);
}

}  // namespace

template <typename T>
void Kernels::rbf_kernel(const RbfArgs<T>& args, int threads) {
  parallel_rows(args.rows, threads, [&](int64_t row) {
    T* const products = args.products + row * args.supports;
    row_values(products, args.squares_of_x[row], args.squares_of_s, static_cast<T>(args.gamma), args.supports,
               products);
  });
}

// Rows whose sums are formed side by side, and supports whose kernel's values stay in the first cache for that.
constexpr int kRows = 4;
constexpr int64_t kSupports = 512;

template <typename T>
void Kernels::rbf_sums(const RbfArgs<T>& args, int threads) {
  parallel_rows((args.rows + kRows - 1) / kRows, threads, [&](int64_t group) {
    const int64_t first = group * kRows;
    const int count = static_cast<int>(std::min<int64_t>(kRows, args.rows - first));
    alignas(64) T values[kSupports];
    alignas(64) double kernel[kRows][kSupports] = {};
    for (int64_t from = 0; from < args.supports; from += kSupports) {
      const int64_t here = std::min(kSupports, args.supports - from), whole = here / kLanes * kLanes;
      for (int r = 0; r < count; ++r) {
        row_values(args.products + (first + r) * args.supports + from, args.squares_of_x[first + r],
                   args.squares_of_s + from, static_cast<T>(args.gamma), here, values);
        for (int64_t i = 0; i < whole; i += kWidth) store(kernel[r] + i, load(values + i));
        for (int64_t i = whole; i < here; ++i) kernel[r][i] = values[i];
      }
      for (int64_t machine = 0; machine < args.machines; ++machine) {
        const double* const coefficients = args.coefficients + machine * args.supports + from;
        Doubles sums[kRows][kRegisters] = {};
        for (int64_t i = 0; i < whole; i += kLanes)
          for (int v = 0; v < kRegisters; ++v) {
            const Doubles coefficient = load(coefficients + i + v * kWidth);
            for (int r = 0; r < kRows; ++r) sums[r][v] += coefficient * load(kernel[r] + i + v * kWidth);
          }
        for (int r = 0; r < count; ++r) {
          double sum = fold_all<double>(sums[r], [](auto a, auto b) { return a + b; });
          for (int64_t i = whole; i < here; ++i) sum += coefficients[i] * kernel[r][i];
          args.sums[(first + r) * args.machines + machine] += sum;
        }
      }
    }
  });
}

template void Kernels::rbf_sums<float>(const RbfArgs<float>&, int);
template void Kernels::rbf_sums<double>(const RbfArgs<double>&, int);
template void Kernels::rbf_kernel<float>(const RbfArgs<float>&, int);
template void Kernels::rbf_kernel<double>(const RbfArgs<double>&, int);

}  // namespace robustperf::ROBUSTPERF_ISA
