#pragma once

#include "../core/box_projection.hpp"
#include "tensor_view.hpp"

namespace robustperf {

inline Norm norm_of(int code) {
  if (code < 1 || code > 3) throw py::value_error("norm: expected a code from 1 to 3, got " + std::to_string(code));
  return static_cast<Norm>(code);
}

}  // namespace robustperf
