"""The enums and constants of the native modules are those of Python."""

import dataclasses

import pytest

from robustperf.ops import program
from robustperf.ops.halfspace_box_projection import NORM_CODES
from robustperf.ops.program import Distribution, Outside, Source, Transform
from robustperf.ops.search_state import CLOSED, OPEN, UNSEEN, Line, Search

native = pytest.importorskip("robustperf._native", exc_type=ImportError)


@pytest.mark.parametrize("enum", [Transform, Distribution, Source, Outside], ids=lambda enum: enum.__name__)
def test_enums(enum):
    assert native.constants[enum.__name__] == {member.name: member.value for member in enum}


@pytest.mark.parametrize("name", ["MAX_STEPS", "MAX_RADIUS", "OCTAVES", "FOG_NODES", "GREY_WEIGHTS"])
def test_constants_of_programs(name):
    assert native.constants[name] == getattr(program, name)


def test_the_encoding_of_a_step():
    step = program.Step(Transform.BRIGHTNESS, Distribution.BOX, (0.0,), (1.0,))
    layout = program.Program((step,)).layout((1, 2, 3))
    assert len(layout.codes) == native.constants["CODES"]
    assert len(layout.parameters) == 2 * native.constants["BOUNDS"] + native.constants["SETTINGS"]
    (decoded,) = program.steps_of(layout.codes, layout.parameters)
    assert len(decoded.lower) == len(decoded.upper) == native.constants["BOUNDS"]
    assert len(decoded.settings) == native.constants["SETTINGS"]


@pytest.mark.parametrize("struct", [Line, Search], ids=lambda struct: struct.__name__)
def test_the_fields_of_a_search(struct):
    fields = [field.name for field in dataclasses.fields(struct)]
    assert native.constants[struct.__name__] == {name: place for place, name in enumerate(fields)}


def test_the_stages_of_a_line():
    assert native.constants["Stage"] == {"UNSEEN": UNSEEN, "OPEN": OPEN, "CLOSED": CLOSED}


def test_the_norms():
    assert native.constants["Norm"] == {f"{norm:g}": code for norm, code in NORM_CODES.items()}
