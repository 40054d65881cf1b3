"""The accelerated operations.

Each takes `backend=None | "reference" | "native" | "cuda" | "triton"`. None means the preferred backend (`preferring`),
else the best one for the tensors' device, as `robustperf info` prints it:

    with ops.preferring("reference"):
        gap = ops.logit_gap(logits, label)

On the `cuda` backend a CUDA graph can capture an operation. Call it once before the capture, on the same device and
with the same dtypes and kind of program: the first call loads the kernel, and the driver may synchronise then, which a
capture forbids. `torch.cuda.graph` asks for such a warm-up of everything that it captures.
"""

from robustperf.ops.ball_box_projection import ball_box_projection
from robustperf.ops.best_of_k import best_of_k
from robustperf.ops.draws import draws
from robustperf.ops.halfspace_box_projection import halfspace_box_projection
from robustperf.ops.line_search_step import line_search_step
from robustperf.ops.logit_gap import logit_gap
from robustperf.ops.nuisance import nuisance
from robustperf.ops.nuisance_draw import nuisance_draw
from robustperf.ops.nuisance_sample import nuisance_sample
from robustperf.ops.rbf_decision import rbf_decision
from robustperf.ops.registry import preferring

__all__ = [
    "ball_box_projection",
    "best_of_k",
    "draws",
    "halfspace_box_projection",
    "line_search_step",
    "logit_gap",
    "nuisance",
    "nuisance_draw",
    "nuisance_sample",
    "preferring",
    "rbf_decision",
]
