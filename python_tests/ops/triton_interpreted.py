"""A pytest plugin: under TRITON_INTERPRET=1 the tests of the operations take Triton for a backend of the CPU. Of each
file those run that an interpreter is quick enough for."""

import os
from types import SimpleNamespace

from triton.runtime import interpreter

from python_tests.support.op_files import select
from robustperf.ops import registry

if os.environ.get("TRITON_INTERPRET") != "1":
    raise RuntimeError("TRITON_INTERPRET: expected 1 before Triton is imported")

# Patterns of the tests' names, by file or by operation.
WANTED = {
    "test_draws": ["counter_layout", "in_a_tensor.*triton-(1|9223372036854775808)",
                   r"agree_bit_for_bit\[triton-(1|5|65)-", "least_word", "greatest_word", "empty"],
    "triton_philox": [""],
    "test_logit_gap": ["random_logits.*17-3-", "every_label", "nan_inf", "by_hand"],
    "best_of_k": [r"random_logits\[triton-(1-1-1|7-17-3|3-9-65)-", "by_hand", "selections_differ", "nan_never",
                       "all_rows_ignored", "empty", "no_probability", "first_draw", "bits.*-5-3-sample-torch.float32",
                       "bits.*-5-3-batch-torch.bfloat16"],
    "test_best_of_k_gradient": ["ignored_rows", "first_and"],
    "ball_box_projection": [r"bisection\[triton-17-.*float32", "closed_forms", "ties", "corner", "faults.*float64",
                            "infinite", "nothing_to_do", r"any_size\[triton-1e-150", "squares_vanish",
                            "rounded_point.*float32", "broadcast"],
    "halfspace_box_projection": [r"odd_dimensions\[triton-17-.*float32", "closed_forms", "infeasible.*float64",
                                      "nothing_to_do", "equal_weights.*float32", r"faults.*triton-0\.5-.*float64"],
    "test_halfspace_box_projection_bounds": [r"least_norm\[triton-9-.*float32", "closed_forms.*float64", "scale_and"],
    "line_search_step": ["straight_line", "identical", "not_active", "wrong", "rounding_tolerance.*16",
                              "nothing_to_search", "just_below"],
    "triton_searches": [""],
    "test_rbf_decision": ["formula_and_its_gradient.*(0.05-1-1-1-1|7.5)", "block.*257-2049.*float32", "far_from",
                          "nothing_to_look", "not_finite", "far_away"],
    "test_nuisance_sample": [r"distribution_word_by_word.*-0\]", r"in_a_tensor.*-5\]", "shared", "greatest_word.*5237"],
    "test_nuisance_draw": ["empty.*brightness", "written_into.*brightness", "shared"],
    "nuisance": [r"small_images.*\[triton-(shot|hue|contrast|gamma).*float32", "compositions_in_float64.*6-5",
                      "small_images.*some of affine.*float64", "shared_delta", "divided_by_zero", "clamp_passes",
                      "hue_leaves", "have_gradients", "negated"],
}  # fmt: skip


_missing = registry.missing
registry.missing = lambda backend: None if backend == "triton" else _missing(backend)
registry._PREFERRED["cpu"] += ("triton",)


# The interpreter holds a scalar as an array [1], and Triton 3.6 and older makes an integer of it, as a loop's bound,
# by `int(array)`, which numpy 2.4 and newer refuses.
_patch_tensor = interpreter._patch_lang_tensor


def _patch_tensor_for_numpy(tensor, scope):
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


interpreter._patch_lang_tensor = _patch_tensor_for_numpy


# The interpreter puts its functions in the place of Triton's at each call of a function, which takes most of its time,
# and puts Triton's back after a kernel. Here its functions stay: once for each module that has kernels.
_patch_lang, _patched = interpreter._patch_lang, {}


def _patch_lang_once(function):
    module = function.__globals__["__name__"]
    if module not in _patched:
        _patched[module] = _patch_lang(function)
    return SimpleNamespace(restore=lambda: None)


interpreter._patch_lang = _patch_lang_once


def pytest_plugin_registered(plugin):
    if getattr(plugin, "ON_GPU", None):  # conftest.py
        plugin.ON_GPU = ("cuda",)


def pytest_collection_modifyitems(config, items):
    select(config, items, "triton", WANTED)
