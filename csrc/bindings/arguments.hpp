// Tensors as Python hands them over, checked, as the arguments of an operation: the same for the CPU and the CUDA
// module. Numbers on a GPU are not waited for; what points somewhere is looked at where it is followed.
#pragma once

#include <string>

#include "../core/arguments.hpp"
#include "tensor_view.hpp"

namespace robustperf {

// Calls run(logit, dtype) with the type of the logits' numbers, float unless they are of another one.
template <typename Run>
void by_logits(const TensorView& logits, Run&& run) {
  if (logits.is(DType::float64))
    run(double{}, DType::float64);
  else if (logits.is(DType::bfloat16))
    run(BFloat16{}, DType::bfloat16);
  else if (logits.is(DType::float16))
    run(Float16{}, DType::float16);
  else
    run(float{}, DType::float32);
}

inline GapArgs gap_args(Device device, const TensorView& logits, DType dtype, py::handle label, py::handle gap,
                        double allowance) {
  GapArgs args{};
  args.logits = logits.data<void>(dtype, {kAny, kAny});
  args.rows = logits.size(0);
  args.classes = logits.size(1);
  args.label = TensorView(label, "label", device).data<int64_t>(DType::int64, {args.rows});
  args.gap = TensorView(gap, "gap", device).data<double>(DType::float64, {args.rows});
  args.allowance = allowance;
  return args;
}

// T: of x, without scratch.
template <typename T>
ProjectionArgs<T> projection_args(Device device, const TensorView& x, DType dtype, py::handle w, py::handle c,
                                  py::handle delta, py::handle feasible, int norm, double lower, double upper) {
  ProjectionArgs<T> args{};
  args.x = x.data<T>(dtype, {kAny, kAny});
  args.rows = x.size(0);
  args.dim = x.size(1);
  args.w = TensorView(w, "w", device).data<T>(dtype, {args.rows, args.dim});
  args.c = TensorView(c, "c", device).data<double>(DType::float64, {args.rows});
  args.delta = TensorView(delta, "delta", device).data<T>(dtype, {args.rows, args.dim});
  args.feasible = TensorView(feasible, "feasible", device).data<bool>(DType::boolean, {args.rows});
  if (norm < 1 || norm > 3) throw py::value_error("norm: expected a code from 1 to 3, got " + std::to_string(norm));
  args.norm = norm;
  args.lower = lower;
  args.upper = upper;
  return args;
}

// T: of the losses, without scratch.
template <typename T>
BestOfKArgs<T> best_of_k_args(Device device, const TensorView& logits, DType dtype, py::handle target, py::handle loss,
                              py::handle index, int64_t first, bool fresh, bool whole_batch, double label_smoothing,
                              int64_t ignore_index) {
  BestOfKArgs<T> args{};
  args.logits = logits.data<void>(dtype, {kAny, kAny, kAny});
  args.draws = logits.size(0);
  args.rows = logits.size(1);
  args.classes = logits.size(2);
  args.target = TensorView(target, "target", device).data<int64_t>(DType::int64, {args.rows});
  args.loss = TensorView(loss, "loss", device)
                  .data<T>(sizeof(T) == sizeof(double) ? DType::float64 : DType::float32, {args.rows});
  args.index = TensorView(index, "index", device).data<int64_t>(DType::int64, {args.rows});
  if (args.draws < 1 || args.classes < 1) throw py::value_error("logits: expected at least one draw and one class");
  for (int64_t b = 0; device == Device::cpu && b < args.rows; ++b)
    if ((args.target[b] < 0 || args.target[b] >= args.classes) && args.target[b] != ignore_index)
      throw py::value_error("target: expected labels in 0.." + std::to_string(args.classes - 1) + ", got " +
                            std::to_string(args.target[b]));
  args.first = first;
  args.fresh = fresh;
  args.whole_batch = whole_batch;
  args.label_smoothing = label_smoothing;
  args.ignore_index = ignore_index;
  return args;
}

template <typename T>
RbfArgs<T> rbf_args(Device device, const TensorView& products, DType dtype, py::handle squares_of_x,
                    py::handle squares_of_s, double gamma) {
  RbfArgs<T> args{};
  args.products = products.data<T>(dtype, {kAny, kAny});
  args.rows = products.size(0);
  args.supports = products.size(1);
  args.squares_of_x = TensorView(squares_of_x, "squares_of_x", device).data<T>(dtype, {args.rows});
  args.squares_of_s = TensorView(squares_of_s, "squares_of_s", device).data<T>(dtype, {args.supports});
  args.gamma = gamma;
  return args;
}

// Without a key.
inline DrawArgs draw_args(Device device, py::handle index_, py::handle draw_, py::handle out_) {
  const TensorView index(index_, "index", device), draw(draw_, "draw", device), out(out_, "out", device);
  DrawArgs args{};
  args.index = index.data<int64_t>(DType::int64, {kAny});
  args.draw = draw.data<int64_t>(DType::int64, {kAny});
  args.samples = index.size(0);
  args.draws = draw.size(0);
  args.out = out.data<float>(DType::float32, {args.draws, args.samples, kAny});
  args.dim = out.size(2);
  return args;
}

}  // namespace robustperf
