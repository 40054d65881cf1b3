// A nuisance program as Python hands it over, checked: nothing that runs it looks at its numbers again.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "../core/arguments.hpp"
#include "tensor_view.hpp"

namespace robustperf {

struct Program {
  std::vector<Step> steps;
  int64_t dim = 0;  // of delta
  int channels_out = 0, channels_most = 0;
  bool warps = false, blurs = false;
};

[[noreturn]] inline void refuse_step(size_t step, const std::string& what) {
  throw py::value_error("program: step " + std::to_string(step) + ": " + what);
}

// What can be said without the images: enough to draw delta.
inline Program program_of(const std::vector<int64_t>& codes, const std::vector<double>& numbers) {
  const size_t count = codes.size() / kStepCodes;
  if (count == 0 || count > kMostSteps || codes.size() != count * kStepCodes || numbers.size() != count * kNumbers)
    throw py::value_error("program: expected 1 to " + std::to_string(kMostSteps) + " steps of " +
                          std::to_string(kStepCodes) + " codes and " + std::to_string(kNumbers) + " numbers, got " +
                          std::to_string(codes.size()) + " and " + std::to_string(numbers.size()));
  Program program;
  int64_t word = 0;
  for (size_t s = 0; s < count; ++s) {
    const int64_t* code = codes.data() + s * kStepCodes;
    Step step{};
    std::copy_n(numbers.data() + s * kNumbers, kNumbers, step.numbers);
    if (code[0] < 0 || code[0] >= kTransforms) refuse_step(s, "unknown transform " + std::to_string(code[0]));
    if (code[1] < 0 || code[1] >= kLaws) refuse_step(s, "unknown law " + std::to_string(code[1]));
    step.transform = static_cast<Transform>(code[0]);
    step.law = static_cast<Law>(code[1]);
    step.dim = code[2];
    step.offset = code[3];
    step.word = word;
    if (step.dim < 1 || step.dim >= int64_t{1} << 31 || (step.law == kBox && step.dim > kBounds))
      refuse_step(
          s, "its delta cannot have " + std::to_string(step.dim) + " components under law " + std::to_string(code[1]));
    const bool shared = step.law == kShared;
    if (shared ? step.offset < 0 || step.offset > program.dim - step.dim : step.offset != program.dim)
      refuse_step(s, "its delta cannot begin at " + std::to_string(step.offset));
    if (!shared) program.dim += step.dim;
    word += host::words(step);
    program.steps.push_back(step);
  }
  return program;
}

// The same for images of this shape: every step must suit what comes in.
inline Program program_of(const std::vector<int64_t>& codes, const std::vector<double>& numbers, int64_t channels,
                          int64_t height, int64_t width) {
  Program program = program_of(codes, numbers);
  // Quads of a padded image are numbered in 32 bits.
  constexpr int64_t kMost = int64_t{1} << 28;
  if (channels < 1 || height < 1 || width < 1 || channels >= kMost || height >= kMost || width >= kMost ||
      (height + 3) * (width + 3) >= kMost)
    throw py::value_error("x: expected images with 1 to 2^28 pixels, got " + text_of({channels, height, width}));
  int current = static_cast<int>(channels);
  program.channels_most = current;
  for (size_t s = 0; s < program.steps.size(); ++s) {
    Step& step = program.steps[s];
    step.channels = current;
    const double setting = host::setting(step, 0);
    if (step.transform == kAffine && !(setting >= 1 && setting < 64)) refuse_step(s, "expected a mask in 1..63");
    if (step.transform == kBlur) {
      const int64_t most = std::min({height - 1, width - 1, int64_t{kMostRadius}});
      if (!(setting >= 0 && setting <= static_cast<double>(most)))
        refuse_step(s, "expected a radius in 0.." + std::to_string(most) + ", got " + std::to_string(setting));
    }
    const bool background = step.transform == kBackground, grey = background && setting == kGrey;
    const bool rgb = step.transform == kSaturation || step.transform == kHue || (background && !grey);
    if ((rgb && current != 3) || (grey && current != 1) ||
        (step.transform == kContrast && current != 3 && current != 1))
      refuse_step(s, std::to_string(current) + " channels do not suit it");
    if (step.dim != host::components(step, current * height * width))
      refuse_step(s, "its delta cannot have " + std::to_string(step.dim) + " components");
    program.warps |= step.transform == kAffine;
    program.blurs |= step.transform == kBlur;
    current = host::channels_after(step.transform, current);
    program.channels_most = std::max(program.channels_most, current);
  }
  program.channels_out = current;
  return program;
}

// The arguments that the way forth and the way back have in common, without scratch; `program` must outlive them.
template <typename T>
NuisanceArgs<T> nuisance_args(const TensorView& x, DType dtype, const std::vector<int64_t>& codes,
                              const std::vector<double>& numbers, Program& program) {
  NuisanceArgs<T> args{};
  args.x = x.data<T>(dtype, {kAny, kAny, kAny, kAny});
  args.batch = x.size(0);
  args.channels = static_cast<int>(x.size(1));
  args.height = x.size(2);
  args.width = x.size(3);
  program = program_of(codes, numbers, args.channels, args.height, args.width);
  args.steps = program.steps.data();
  args.count = static_cast<int64_t>(program.steps.size());
  args.dim = program.dim;
  args.channels_out = program.channels_out;
  args.channels_most = program.channels_most;
  return args;
}

// Draws of a program's delta, without a key; `program` must outlive them.
inline NuisanceSampleArgs sample_args(Device device, const Program& program, py::handle index_, py::handle draw_,
                                      py::handle delta) {
  const TensorView index(index_, "index", device), draw(draw_, "draw", device);
  NuisanceSampleArgs args{};
  args.steps = program.steps.data();
  args.count = static_cast<int64_t>(program.steps.size());
  args.samples = index.size(0);
  args.draws = draw.size(0);
  args.dim = program.dim;
  args.index = index.data<int64_t>(DType::int64, {kAny});
  args.draw = draw.data<int64_t>(DType::int64, {kAny});
  args.delta = TensorView(delta, "delta", device).data<float>(DType::float32, {args.draws, args.samples, args.dim});
  return args;
}

}  // namespace robustperf
