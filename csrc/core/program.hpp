// A nuisance kernel, or a composition of several, as a program: steps that run one after the other on each image. Every
// step has components of its own in delta, or shares those of an earlier step.
//
// This is the one place that knows how Python encodes a program: `codes` and `parameters`, two flat lists. The enums,
// the constants and the order of the fields are those of robustperf/ops/program.py.
#pragma once

#include <stdexcept>
#include <string>

#include "platform.hpp"

namespace robustperf {

enum Transform : int64_t {
  kBrightness,
  kContrast,
  kSaturation,
  kHue,
  kGamma,
  kBackground,
  kAffine,
  kAdd,
  kImpulse,
  kShot,
  kBlur,
  kFog,
  kTransforms,
};

// How a step's delta is drawn; distributions.hpp has the formulas. kShared: not drawn, the delta of an earlier step.
enum Distribution : int64_t {
  kBox,
  kEverywhere,
  kNormal,
  kBall,
  kFogDistribution,
  kShared,
  kDistributions,
};

// The colour that a background step replaces: black of a grey image, that of the first pixel, or one in the settings.
enum Source : int { kGrey, kCorner, kColour };

// The values that an affine step reads outside the image.
enum Outside : int { kZeros, kBorder };

constexpr int kMaxSteps = 32;
constexpr int kMaxRadius = 64;  // of a blur, in pixels

// One step, encoded: `codes` are transform, distribution, components of delta and their offset in delta; `parameters`
// are the lower bounds of delta, the upper bounds and the settings.
constexpr int kCodes = 4;
constexpr int kBounds = 6;
constexpr int kSettings = 4;
constexpr int kParameters = 2 * kBounds + kSettings;

// Fog's lattices of random numbers have 3, 5, 9 and 17 nodes a side.
constexpr int kOctaves = 4;
constexpr int64_t kFogNodes = 3 * 3 + 5 * 5 + 9 * 9 + 17 * 17;

struct Step {
  Transform transform;
  Distribution distribution;
  int64_t dim, offset;  // in delta
  int64_t word;         // of its first random word in a draw
  int channels;         // of the input image
  double lower[kBounds], upper[kBounds], settings[kSettings];
};

struct Program {
  Step steps[kMaxSteps];
  int64_t count = 0;
  int64_t dim = 0;  // of delta
  // for images of one shape
  int channels_out = 0, max_channels = 0;
};

namespace ROBUSTPERF_TARGET {

// ---- the settings, by transform

ROBUSTPERF_HD constexpr double saturation_sign(const Step& step) { return step.settings[0]; }  // of delta
ROBUSTPERF_HD constexpr bool replaces(const Step& background, Source source) {
  return background.settings[0] == source;
}
ROBUSTPERF_HD constexpr double background_colour(const Step& step, int channel) { return step.settings[1 + channel]; }
ROBUSTPERF_HD constexpr int64_t affine_mask(const Step& step) { return static_cast<int64_t>(step.settings[0]); }
ROBUSTPERF_HD constexpr bool extends_border(const Step& affine) { return affine.settings[1] == kBorder; }
ROBUSTPERF_HD constexpr bool clamps(const Step& add) { return add.settings[0] != 0; }
ROBUSTPERF_HD constexpr double impulse_fraction(const Step& step) { return step.settings[0]; }  // of values replaced
ROBUSTPERF_HD constexpr double shot_rate(const Step& step) { return step.settings[0]; }
ROBUSTPERF_HD constexpr int blur_radius(const Step& step) { return static_cast<int>(step.settings[0]); }

// ---- what follows from a step's codes

// Channels of the image after a step.
ROBUSTPERF_HD constexpr int channels_after(Transform transform, int channels) {
  return transform == kBackground ? 3 : channels;
}

// Whether delta has a component for each value of the image.
ROBUSTPERF_HD constexpr bool has_image_delta(Transform transform) {
  return transform == kAdd || transform == kImpulse || transform == kShot;
}

// Components of delta; pixels = channels * height * width of the input image.
ROBUSTPERF_HD constexpr int64_t components(const Step& step, int64_t pixels) {
  if (has_image_delta(step.transform)) return pixels;
  if (step.transform == kBackground) return 3;
  if (step.transform == kFog) return 1 + kFogNodes;
  if (step.transform != kAffine) return 1;
  int64_t count = 0;
  for (int64_t mask = affine_mask(step); mask > 0; mask >>= 1) count += mask & 1;
  return count;
}

// Random words that a draw of the step's delta takes: a ball's takes one more, for the radius.
ROBUSTPERF_HD constexpr int64_t words(const Step& step) {
  return step.distribution == kShared ? 0 : step.dim + (step.distribution == kBall ? 1 : 0);
}

// Whether the step needs statistics of its whole input: contrast the mean grey, fog the maximum, a background of the
// corner's colour the first pixel.
ROBUSTPERF_HD constexpr bool needs_image_statistics(const Step& step) {
  return step.transform == kContrast || step.transform == kFog ||
         (step.transform == kBackground && replaces(step, kCorner));
}

// ---- decoding, on the host; the errors name the argument of the Python functions

[[noreturn]] inline void refuse_step(int64_t step, const std::string& reason) {
  throw std::invalid_argument("program: step " + std::to_string(step) + ": " + reason);
}

// What does not depend on the images: enough to draw delta.
inline void decode(const int64_t* codes, size_t code_count, const double* parameters, size_t parameter_count,
                   Program& program) {
  const size_t count = code_count / kCodes;
  if (count == 0 || count > kMaxSteps || code_count != count * kCodes || parameter_count != count * kParameters)
    throw std::invalid_argument("program: expected 1 to " + std::to_string(kMaxSteps) + " steps of " +
                                std::to_string(kCodes) + " codes and " + std::to_string(kParameters) +
                                " parameters, got " + std::to_string(code_count) + " and " +
                                std::to_string(parameter_count));
  program.count = static_cast<int64_t>(count);
  program.dim = 0;
  int64_t word = 0;
  for (int64_t s = 0; s < program.count; ++s, codes += kCodes, parameters += kParameters) {
    if (codes[0] < 0 || codes[0] >= kTransforms) refuse_step(s, "unknown transform " + std::to_string(codes[0]));
    if (codes[1] < 0 || codes[1] >= kDistributions) refuse_step(s, "unknown distribution " + std::to_string(codes[1]));
    Step& step = program.steps[s];
    step.transform = static_cast<Transform>(codes[0]);
    step.distribution = static_cast<Distribution>(codes[1]);
    step.dim = codes[2];
    step.offset = codes[3];
    step.word = word;
    memcpy(step.lower, parameters, sizeof step.lower);
    memcpy(step.upper, parameters + kBounds, sizeof step.upper);
    memcpy(step.settings, parameters + 2 * kBounds, sizeof step.settings);
    if (step.dim < 1 || step.dim >= int64_t{1} << 31 || (step.distribution == kBox && step.dim > kBounds))
      refuse_step(s, "its delta cannot have " + std::to_string(step.dim) + " components under distribution " +
                         std::to_string(codes[1]));
    const bool shared = step.distribution == kShared;
    if (shared ? step.offset < 0 || step.offset > program.dim - step.dim : step.offset != program.dim)
      refuse_step(s, "its delta cannot begin at " + std::to_string(step.offset));
    if (!shared) program.dim += step.dim;
    word += words(step);
  }
}

// The rest, for images of one shape: every step must suit its input.
inline void fit_to_images(Program& program, int64_t channels, int64_t height, int64_t width) {
  constexpr int64_t kMax = int64_t{1} << 28;  // pixels of a padded image are counted in 32 bits, four channels each
  if (channels < 1 || height < 1 || width < 1 || channels >= kMax || height >= kMax || width >= kMax ||
      (height + 3) * (width + 3) >= kMax)
    throw std::invalid_argument("x: expected images with 1 to 2^28 pixels, got [" + std::to_string(channels) + ", " +
                                std::to_string(height) + ", " + std::to_string(width) + "]");
  int current = static_cast<int>(channels);
  program.max_channels = current;
  for (int64_t s = 0; s < program.count; ++s) {
    Step& step = program.steps[s];
    step.channels = current;
    const double setting = step.settings[0];
    if (step.transform == kAffine && !(setting >= 1 && setting < 64)) refuse_step(s, "expected a mask in 1..63");
    if (step.transform == kBlur) {
      const int64_t most = min_of(min_of(height, width) - 1, int64_t{kMaxRadius});
      if (!(setting >= 0 && setting <= static_cast<double>(most)))
        refuse_step(s, "expected a radius in 0.." + std::to_string(most) + ", got " + std::to_string(setting));
    }
    const bool background = step.transform == kBackground, grey = background && replaces(step, kGrey);
    const bool rgb = step.transform == kSaturation || step.transform == kHue || (background && !grey);
    if ((rgb && current != 3) || (grey && current != 1) ||
        (step.transform == kContrast && current != 3 && current != 1))
      refuse_step(s, "it does not take images of " + std::to_string(current) + " channels");
    if (step.dim != components(step, current * height * width))
      refuse_step(s, "its delta cannot have " + std::to_string(step.dim) + " components");
    current = channels_after(step.transform, current);
    program.max_channels = max_of(program.max_channels, current);
  }
  program.channels_out = current;
}

}  // namespace ROBUSTPERF_TARGET
}  // namespace robustperf
