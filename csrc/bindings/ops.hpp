// The ops of both modules: an include and a line for each.
#pragma once

#include "ball_box_projection.hpp"
#include "best_of_k.hpp"
#include "constants.hpp"
#include "draws.hpp"
#include "halfspace_box_projection.hpp"
#include "line_search_step.hpp"
#include "logit_gap.hpp"
#include "nuisance.hpp"
#include "nuisance_backward.hpp"
#include "nuisance_draw.hpp"
#include "nuisance_sample.hpp"
#include "rbf_decision.hpp"

namespace robustperf {

template <typename Backend>
void def_ops(py::module_& module) {
  def_ball_box_projection<Backend>(module);
  def_best_of_k<Backend>(module);
  def_draws<Backend>(module);
  def_halfspace_box_projection<Backend>(module);
  def_line_search_step<Backend>(module);
  def_logit_gap<Backend>(module);
  def_nuisance<Backend>(module);
  def_nuisance_backward<Backend>(module);
  def_nuisance_draw<Backend>(module);
  def_nuisance_sample<Backend>(module);
  def_rbf_decision<Backend>(module);
  def_constants(module);
}

}  // namespace robustperf
