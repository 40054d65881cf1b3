"""A pytest plugin: the ops' tests run on the GPU module that build_emulated.py builds, EMULATED_MODULE, as a backend of
the CPU. Of each file the tests that are fast in the emulation run; together they launch every __global__ function."""

import contextlib
import importlib.util
import os
import sys
from types import SimpleNamespace

import torch

import robustperf
from python_tests.support.op_files import select
from robustperf.ops import registry

# By file or by operation, patterns of the tests' names; of a file not listed here all tests run.
WANTED = {
    "test_draws": ["counter_layout", "in_a_tensor", r"agree_bit_for_bit\[cuda-(1|4|5|65)-", "least_word",
                   "greatest_word", "empty"],
    "test_logit_gap": ["random_logits.*(0-2|17-3|5-1000)", "every_label", "nan_inf", "by_hand", "largest_numbers"],
    "best_of_k": [r"random_logits\[cuda-(1-1-1|7-17-3|3-17-64|3-9-65|4-5-100|3-7-1003|10-6-1000)-", "by_hand",
                       "selections_differ", "nan_never", "all_rows_ignored", "empty", "no_probability", "first_draw",
                       r"bits_of_one_call\[cuda-(17-3-|257-2-batch-torch.float32)", "label_smoothing.*0.1-1003",
                       "batch_with_nan.*cuda-0"],
    "ball_box_projection": [r"bisection\[cuda-(16|33|100)-", "closed_forms", "ties", "corner", "faults", "infinite",
                            "nothing_to_do", "any_size.*1e", "squares_vanish", "rounded_point", "broadcast",
                            "dynamic_range", "zero_steps"],
    "halfspace_box_projection": [r"odd_dimensions\[cuda-(16|33|100)-", "closed_forms", "infeasible",
                                      r"exactly.*4\.0-(2|1-torch.float32)", "nothing_to_do", "equal_weights",
                                      r"faults.*cuda-0\.5-", "p1_ends", "dynamic_range", "largest_and_least"],
    "line_search_step": [r"zoo_of_gaps.*chandrupatla-(0|3)-0\.015625", "straight_line", "identical",
                              "not_active", "wrong", "rounding_tolerance", "nothing_to_search", "just_below",
                         "beyond_half"],
    "test_rbf_decision": ["formula_and_its_gradient", r"one_block\[cuda-513", "far_from", "nothing_to_look",
                          "not_finite", "far_away"],
    "test_nuisance_sample": [r"distribution_word_by_word.*-0\]", "in_a_tensor", "shared", "greatest_word.*5237"],
    "test_nuisance_draw": [r"sample_put_through.*cuda-(of much|balls|from grey)", "empty.*brightness",
                           "written_into.*brightness", "shared"],
    "nuisance": ["small_images", "quarter_turns.*90", "whole_pixels", "compositions_in_float64.*6-5",
                      "steps_one_after_the_other.*6-5", "as_many_steps", "one_group", "between_steps.*float32",
                      "largest_radius.*(31|64)", r"finite_differences\[cuda-(of colours|fog|blur|some of|add|hue)",
                      "several_draws", "shared_delta", "divided_by_zero", "clamp_passes", "have_gradients",
                      "shot_noise_has", "impulses_stop", "negated", "last_pixels"],
    "cuda_clusters": [""],
}  # fmt: skip


_spec = importlib.util.spec_from_file_location("robustperf._native_cuda", os.environ["EMULATED_MODULE"])
robustperf._native_cuda = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(robustperf._native_cuda)
_missing = registry.missing
registry.missing = lambda backend: None if backend == "cuda" else _missing(backend)
registry._PREFERRED["cpu"] += ("cuda",)
torch.cuda.device = contextlib.nullcontext
torch.cuda.current_stream = lambda device: SimpleNamespace(cuda_stream=0)


def pytest_plugin_registered(plugin):
    if getattr(plugin, "ON_GPU", None):  # conftest.py
        plugin.ON_GPU = ("triton",)


def pytest_collection_modifyitems(config, items):
    select(config, items, "cuda", WANTED)
