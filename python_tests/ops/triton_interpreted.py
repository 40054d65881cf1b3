"""A pytest plugin: under TRITON_INTERPRET=1 the tests of the operations take Triton for a backend of the CPU. Of each
file those run that an interpreter is quick enough for."""

import os
import re

from robustperf.ops import registry

if os.environ.get("TRITON_INTERPRET") != "1":
    raise RuntimeError("TRITON_INTERPRET: expected 1 before Triton is imported")

WANTED = {
    "test_draws": r"counter_layout|agree_bit_for_bit\[triton-(0|1|5|65)-|least_word|greatest_word|empty",
    "triton_philox": "",
    "test_logit_gap": "",
    "test_best_of_k": r"random_logits\[triton-(1-1-1|7-17-3|3-9-41|2-1-30000)-|by_hand|selections_differ|equal_draws|"
                      "nan|ignored|empty|no_probability|inputs_are|first_draw|chunks_without",
    "test_halfspace_box_projection": "",
    "test_line_search_step": "zoo.*(chandrupatla-3|bisection-0)-0.015|straight_line|probes_find|identical|not_active|"
                             "nothing_to_search|wrong|allowance|stages|just_below|beyond_half|known|between_x",
    "test_nuisance_sample": "law_by|agree|shared|least|greatest|chunks",
    "test_nuisance_draw": "sample_put|empty|written_into|shared",
    "test_nuisance": "",
}  # fmt: skip

_missing = registry.missing
registry.missing = lambda backend: None if backend == "triton" else _missing(backend)
registry._PREFERRED["cpu"] += ("triton",)


def pytest_plugin_registered(plugin):
    if getattr(plugin, "ON_GPU", None):  # conftest.py
        plugin.ON_GPU = ("cuda",)


def pytest_collection_modifyitems(config, items):
    wanted = [item for item in items if "triton" in item.nodeid and re.search(WANTED[item.path.stem], item.name)]
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = wanted
