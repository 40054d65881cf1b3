#include "../core/rbf_decision.hpp"

#include "parallel.hpp"
#include "simd.hpp"

namespace robustperf::ROBUSTPERF_TARGET {
namespace {

// Kernel values of one row, into `values`, which may be its products.
template <typename T>
void values_of_row(const T* products, T square_of_x, const T* squares_of_s, T gamma, int64_t count, T* values) {
  using V = RegisterOf<T>;
  const int64_t vectorized = count / kWidthOf<T> * kWidthOf<T>;
  for (int64_t i = 0; i < vectorized; i += kWidthOf<T>)
    write(values + i, rbf_value(read(products + i), V{} + square_of_x, read(squares_of_s + i), gamma));
  for (int64_t i = vectorized; i < count; ++i) values[i] = rbf_value(products[i], square_of_x, squares_of_s[i], gamma);
}

}  // namespace

template <typename T>
void rbf_distances(const RbfDistanceArgs<T>& args, Target target) {
  const int64_t vectorized = args.dim / kLanes * kLanes;
  parallel_rows(args.supports, target.threads, [&](int64_t s) {
    const T* const vector = args.support + s * args.dim;
    for (int64_t row = 0; row < args.rows; ++row) {
      const T* const point = args.x + row * args.dim;
      Doubles sums[kRegisters] = {};
      for (int64_t i = 0; i < vectorized; i += kLanes)
        for (int v = 0; v < kRegisters; ++v)
          sums[v] += squared_difference(load(point + i + v * kWidth), load(vector + i + v * kWidth));
      double sum = reduce_registers<double>(sums, [](auto a, auto b) { return a + b; });
      for (int64_t i = vectorized; i < args.dim; ++i) sum += squared_difference<double>(point[i], vector[i]);
      const T product = static_cast<T>(-0.5 * sum);
      args.products[row * args.supports + s] = product + 0 * product;
    }
  });
}

template <typename T>
void rbf_values(const RbfDecisionArgs<T>& args, Target target) {
  parallel_rows(args.rows, target.threads, [&](int64_t row) {
    T* const products = args.products + row * args.supports;
    values_of_row(products, args.squares_of_x[row], args.squares_of_s, static_cast<T>(args.gamma), args.supports,
                  products);
  });
}

// Rows whose sums are computed side by side, and supports whose kernel values stay in the L1 cache for that.
constexpr int kRows = 4;
constexpr int64_t kSupports = 512;

template <typename T>
void rbf_sums(const RbfDecisionArgs<T>& args, Target target) {
  parallel_rows((args.rows + kRows - 1) / kRows, target.threads, [&](int64_t group) {
    const int64_t first = group * kRows;
    const int count = static_cast<int>(min_of<int64_t>(kRows, args.rows - first));
    alignas(64) T values[kSupports];
    alignas(64) double kernel[kRows][kSupports] = {};
    for (int64_t from = 0; from < args.supports; from += kSupports) {
      const int64_t here = min_of(kSupports, args.supports - from), vectorized = here / kLanes * kLanes;
      for (int r = 0; r < count; ++r) {
        values_of_row(args.products + (first + r) * args.supports + from, args.squares_of_x[first + r],
                      args.squares_of_s + from, static_cast<T>(args.gamma), here, values);
        for (int64_t i = 0; i < vectorized; i += kWidth) store(kernel[r] + i, load(values + i));
        for (int64_t i = vectorized; i < here; ++i) kernel[r][i] = values[i];
      }
      for (int64_t classifier = 0; classifier < args.classifiers; ++classifier) {
        const double* const coefficients = args.coefficients + classifier * args.supports + from;
        Doubles sums[kRows][kRegisters] = {};
        for (int64_t i = 0; i < vectorized; i += kLanes)
          for (int v = 0; v < kRegisters; ++v) {
            const Doubles coefficient = load(coefficients + i + v * kWidth);
            for (int r = 0; r < kRows; ++r) sums[r][v] += coefficient * load(kernel[r] + i + v * kWidth);
          }
        for (int r = 0; r < count; ++r) {
          double sum = reduce_registers<double>(sums[r], [](auto a, auto b) { return a + b; });
          for (int64_t i = vectorized; i < here; ++i) sum += coefficients[i] * kernel[r][i];
          args.sums[(first + r) * args.classifiers + classifier] += sum;
        }
      }
    }
  });
}

template void rbf_distances(const RbfDistanceArgs<float>&, Target);
template void rbf_distances(const RbfDistanceArgs<double>&, Target);
template void rbf_values(const RbfDecisionArgs<float>&, Target);
template void rbf_values(const RbfDecisionArgs<double>&, Target);
template void rbf_sums(const RbfDecisionArgs<float>&, Target);
template void rbf_sums(const RbfDecisionArgs<double>&, Target);

}  // namespace robustperf::ROBUSTPERF_TARGET
