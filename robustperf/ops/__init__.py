"""The accelerated operations. Each takes `backend=None | "reference" | "native" | "cuda" | "triton"`; None is the best
one for the tensors' device, as `robustperf info` prints it."""

from robustperf.ops.best_of_k import best_of_k
from robustperf.ops.draws import draws
from robustperf.ops.halfspace_box_projection import halfspace_box_projection
from robustperf.ops.line_search_step import line_search_step
from robustperf.ops.logit_gap import logit_gap
from robustperf.ops.nuisance import nuisance
from robustperf.ops.nuisance_draw import nuisance_draw
from robustperf.ops.nuisance_sample import nuisance_sample
from robustperf.ops.rbf_decision import rbf_decision

__all__ = ["best_of_k", "draws", "halfspace_box_projection", "line_search_step", "logit_gap", "nuisance",
           "nuisance_draw", "nuisance_sample", "rbf_decision"]
