// What the bindings of the nuisance ops share. Nothing that runs a program checks its parameters again.
#pragma once

#include <pybind11/stl.h>

#include <vector>

#include "../core/nuisance.hpp"
#include "backend.hpp"

namespace robustperf {

using Codes = std::vector<int64_t>;
using Parameters = std::vector<double>;

inline void decode(const Codes& codes, const Parameters& parameters, Program& program) {
  host::decode(codes.data(), codes.size(), parameters.data(), parameters.size(), program);
}

// Sets the fields for images x; `program` must outlive `args`.
template <typename T>
void set_images(NuisanceArgs<T>& args, const TensorView& x, const Codes& codes, const Parameters& parameters,
                Program& program) {
  args.x = x.data<T>({kAny, kAny, kAny, kAny});
  args.batch = x.size(0);
  args.channels = static_cast<int>(x.size(1));
  args.height = x.size(2);
  args.width = x.size(3);
  decode(codes, parameters, program);
  host::fit_to_images(program, x.size(1), args.height, args.width);
  args.steps = program.steps;
  args.count = program.count;
  args.dim = program.dim;
  args.channels_out = program.channels_out;
  args.max_channels = program.max_channels;
}

template <typename T>
void set_delta(NuisanceArgs<T>& args, const TensorView& delta) {
  args.delta = delta.data<T>({kAny, args.batch, args.dim});
  args.draws = delta.size(0);
}

template <typename T>
T* image_data(const NuisanceArgs<T>& args, const TensorView& out) {
  return out.data<T>({args.draws, args.batch, args.channels_out, args.height, args.width});
}

// Values that the largest images of all draws have.
template <typename T>
int64_t work_of(const NuisanceArgs<T>& args) {
  return args.draws * args.batch * args.max_channels * args.height * args.width;
}

// On a GPU, scratch is a tensor of int64.
template <typename T>
void set_scratch(NuisanceArgs<T>& args, const TensorView& scratch, int64_t bytes) {
  args.scratch = reinterpret_cast<T*>(scratch.data<int64_t>({kAny}));
  if (scratch.size(0) * 8 < bytes)
    throw py::value_error("scratch: expected at least " + std::to_string(bytes) + " bytes, got " +
                          std::to_string(scratch.size(0) * 8));
}

}  // namespace robustperf
