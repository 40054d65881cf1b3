// The enums and constants that C++ and Python both have, for the test that compares them.
#pragma once

#include <iterator>

#include "../core/box_projection.hpp"
#include "../core/colour.hpp"
#include "../core/line_search_step.hpp"
#include "../core/nuisance.hpp"
#include "tensor_view.hpp"

namespace robustperf {

// {name: value}
template <typename Enum, size_t kCount>
py::dict dict_of(const std::pair<const char*, Enum> (&items)[kCount]) {
  py::dict dict;
  for (const auto& [name, value] : items) dict[name] = static_cast<int64_t>(value);
  return dict;
}

// {field: its place}, of a struct of doubles
template <typename Struct, size_t kCount>
py::dict fields_of(const std::pair<const char*, double Struct::*> (&items)[kCount]) {
  static_assert(sizeof(Struct) == kCount * sizeof(double));
  py::dict dict;
  const Struct zero{};
  for (const auto& [name, field] : items) dict[name] = &(zero.*field) - reinterpret_cast<const double*>(&zero);
  return dict;
}

inline void def_constants(py::module_& module) {
  const std::pair<const char*, Transform> transforms[] = {
      {"BRIGHTNESS", kBrightness},
      {"CONTRAST", kContrast},
      {"SATURATION", kSaturation},
      {"HUE", kHue},
      {"GAMMA", kGamma},
      {"BACKGROUND", kBackground},
      {"AFFINE", kAffine},
      {"ADD", kAdd},
      {"IMPULSE", kImpulse},
      {"SHOT", kShot},
      {"BLUR", kBlur},
      {"FOG", kFog},
  };
  static_assert(std::size(transforms) == kTransforms);
  const std::pair<const char*, Distribution> distributions[] = {
      {"BOX", kBox},   {"EVERYWHERE", kEverywhere}, {"NORMAL", kNormal},
      {"BALL", kBall}, {"FOG", kFogDistribution},   {"SHARED", kShared},
  };
  static_assert(std::size(distributions) == kDistributions);
  const std::pair<const char*, Source> sources[] = {{"GREY", kGrey}, {"CORNER", kCorner}, {"COLOUR", kColour}};
  const std::pair<const char*, Outside> outsides[] = {{"ZEROS", kZeros}, {"BORDER", kBorder}};
  const std::pair<const char*, Fault> faults[] = {{"PIXEL", kPixel}, {"DELTA", kDelta}};
  const std::pair<const char*, Norm> norms[] = {{"1", Norm::one}, {"2", Norm::two}, {"inf", Norm::inf}};
  const std::pair<const char*, host::Stage> stages[] = {
      {"UNSEEN", host::kUnseen}, {"OPEN", host::kOpen}, {"CLOSED", host::kClosed}};
  using host::Line;
  const std::pair<const char*, double Line::*> line[] = {
      {"length", &Line::length},
      {"gap_end", &Line::gap_end},
      {"a", &Line::a},
      {"gap_a", &Line::gap_a},
      {"b", &Line::b},
      {"gap_b", &Line::gap_b},
      {"c", &Line::c},
      {"gap_c", &Line::gap_c},
      {"iterations", &Line::iterations},
      {"probe", &Line::probe},
      {"stage", &Line::stage},
  };
  using host::Search;
  const std::pair<const char*, double Search::*> search[] = {
      {"gap_x", &Search::gap_x},
      {"step", &Search::step},
      {"line", &Search::line},
      {"radius", &Search::radius},
      {"best_step", &Search::best_step},
      {"best_line", &Search::best_line},
      {"evaluations", &Search::evaluations},
  };
  py::dict all;
  all["Transform"] = dict_of(transforms);
  all["Distribution"] = dict_of(distributions);
  all["Source"] = dict_of(sources);
  all["Outside"] = dict_of(outsides);
  all["Fault"] = dict_of(faults);
  all["Norm"] = dict_of(norms);
  all["Stage"] = dict_of(stages);
  all["Line"] = fields_of(line);
  all["Search"] = fields_of(search);
  all["MAX_STEPS"] = kMaxSteps;
  all["MAX_RADIUS"] = kMaxRadius;
  all["CODES"] = kCodes;
  all["BOUNDS"] = kBounds;
  all["SETTINGS"] = kSettings;
  all["OCTAVES"] = kOctaves;
  all["FOG_NODES"] = kFogNodes;
  all["GREY_WEIGHTS"] = py::make_tuple(host::kGreyRed, host::kGreyGreen, host::kGreyBlue);
  module.attr("constants") = all;
}

}  // namespace robustperf
