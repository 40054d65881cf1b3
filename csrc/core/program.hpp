// A nuisance kernel, or a composition of several, as a small program: steps that are run one after the other on each
// image, every step with its own components of delta.
#pragma once

#include "platform.hpp"

namespace robustperf {

// The numbers are those of robustperf/ops/program.py.
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

// How a step's delta is drawn; kShared: it is that of an earlier step.
enum Law : int64_t { kBox, kEverywhere, kNormal, kBall, kFogLaw, kShared, kLaws };

constexpr int kBounds = 6;     // numbers[0..5]: the lower bounds of delta, numbers[6..11]: the upper ones
constexpr int kSettings = 12;  // numbers[12..15]: what else a step wants to know
constexpr int kNumbers = 16;
constexpr int kMostSteps = 32;
constexpr int kMostRadius = 64;  // of blur, in pixels
constexpr int kStepCodes = 4;    // transform, law, components of delta, where they begin

// Fog's lattices of random numbers: 3, 5, 9 and 17 nodes a side, each weighing half of the one before.
constexpr int kOctaves = 4;
constexpr int64_t kFogNodes = 3 * 3 + 5 * 5 + 9 * 9 + 17 * 17;

struct Step {
  Transform transform;
  Law law;
  int64_t dim, offset;  // of delta
  int64_t word;         // of its first random word
  int channels;         // of the image that comes in
  double numbers[kNumbers];
};

// Settings by transform: saturation's sign of delta; the background's Source, then its colour; which of the affine
// parameters delta holds (bits), then Outside; whether an addition is clamped; impulse noise's share; shot noise's
// rate; blur's radius.
enum Source : int { kGrey, kCorner, kColour };
enum Outside : int { kZeros, kBorder };

namespace ROBUSTPERF_ISA {

ROBUSTPERF_HD constexpr double setting(const Step& step, int i) { return step.numbers[kSettings + i]; }

// An image after this step has so many channels.
ROBUSTPERF_HD constexpr int channels_after(Transform transform, int channels) {
  return transform == kBackground ? 3 : channels;
}

// Components of delta; pixels = channels * height * width of the image that comes in.
ROBUSTPERF_HD constexpr int64_t components(const Step& step, int64_t pixels) {
  switch (step.transform) {
    case kBackground:
      return 3;
    case kAffine: {
      int64_t count = 0;
      for (int64_t mask = static_cast<int64_t>(setting(step, 0)); mask > 0; mask >>= 1) count += mask & 1;
      return count;
    }
    case kAdd:
    case kImpulse:
    case kShot:
      return pixels;
    case kFog:
      return 1 + kFogNodes;
    default:
      return 1;
  }
}

// Random words that its law takes.
ROBUSTPERF_HD constexpr int64_t words(const Step& step) {
  return step.law == kShared ? 0 : step.dim + (step.law == kBall ? 1 : 0);
}

// Whether a step wants to know the whole image first.
ROBUSTPERF_HD inline bool wants_whole(const Step& step) {
  return step.transform == kContrast || step.transform == kFog ||
         (step.transform == kBackground && setting(step, 0) == kCorner);
}

// Whether delta has a number for each value of the image.
ROBUSTPERF_HD inline bool has_image(const Step& step) {
  return step.transform == kAdd || step.transform == kImpulse || step.transform == kShot;
}

}  // namespace ROBUSTPERF_ISA
}  // namespace robustperf
