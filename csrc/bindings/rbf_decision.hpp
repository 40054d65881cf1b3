#pragma once

#include "../core/rbf_decision.hpp"
#include "backend.hpp"

namespace robustperf {

template <typename Backend, typename T>
RbfDecisionArgs<T> rbf_decision_args(const TensorView& products, py::handle squares_of_x, py::handle squares_of_s,
                                     double gamma) {
  RbfDecisionArgs<T> args{};
  args.products = products.data<T>({kAny, kAny});
  args.rows = products.size(0);
  args.supports = products.size(1);
  args.squares_of_x = view<Backend>(squares_of_x, "squares_of_x").template data<T>({args.rows});
  args.squares_of_s = view<Backend>(squares_of_s, "squares_of_s").template data<T>({args.supports});
  args.gamma = gamma;
  return args;
}

template <typename Backend>
void def_rbf_decision(py::module_& module) {
  module.def(
      "rbf_values",
      [](py::handle products_, py::handle squares_of_x, py::handle squares_of_s, double gamma, int64_t where) {
        const auto products = view<Backend>(products_, "products");
        by_dtype(products, [&](auto zero) {
          const auto args = rbf_decision_args<Backend, decltype(zero)>(products, squares_of_x, squares_of_s, gamma);
          Backend::run(args.rows * args.supports, where, [&](auto target) { rbf_values(args, target); });
        });
      },
      "Replaces the products <x, s> [B, S] by the RBF kernel's values.", py::arg("products"), py::arg("squares_of_x"),
      py::arg("squares_of_s"), py::arg("gamma"), py::arg(Backend::kWhere));
  if constexpr (Backend::kDevice == Device::cpu) {
    module.def(
        "rbf_distances",
        [](py::handle x_, py::handle support_, py::handle products, int64_t where) {
          const auto x = view<Backend>(x_, "x"), support = view<Backend>(support_, "support");
          by_dtype(x, [&](auto zero) {
            using T = decltype(zero);
            RbfDistanceArgs<T> args{};
            args.x = x.template data<T>({kAny, kAny});
            args.rows = x.size(0);
            args.dim = x.size(1);
            args.support = support.template data<T>({kAny, args.dim});
            args.supports = support.size(0);
            args.products = view<Backend>(products, "products").template data<T>({args.rows, args.supports});
            Backend::run(args.rows * args.supports * args.dim, where,
                         [&](auto target) { rbf_distances(args, target); });
          });
        },
        "Writes -|x - s|^2 / 2 into products [B, S], for x [B, D] and support [S, D].", py::arg("x"),
        py::arg("support"), py::arg("products"), py::arg(Backend::kWhere));
    module.def(
        "rbf_sums",
        [](py::handle products_, py::handle squares_of_x, py::handle squares_of_s, double gamma,
           py::handle coefficients_, py::handle sums, int64_t where) {
          const auto products = view<Backend>(products_, "products"),
                     coefficients = view<Backend>(coefficients_, "coefficients");
          by_dtype(products, [&](auto zero) {
            auto args = rbf_decision_args<Backend, decltype(zero)>(products, squares_of_x, squares_of_s, gamma);
            args.coefficients = coefficients.template data<double>({kAny, args.supports});
            args.classifiers = coefficients.size(0);
            args.sums = view<Backend>(sums, "sums").template data<double>({args.rows, args.classifiers});
            Backend::run(args.rows * args.supports, where, [&](auto target) { rbf_sums(args, target); });
          });
        },
        "Adds to sums [B, M], in float64, the RBF kernel's values times coefficients [M, S].", py::arg("products"),
        py::arg("squares_of_x"), py::arg("squares_of_s"), py::arg("gamma"), py::arg("coefficients"), py::arg("sums"),
        py::arg(Backend::kWhere));
  }
}

}  // namespace robustperf
