import math

import pytest

from robustperf.attacks import BG, FGSM, PGD
from robustperf.cli.expression import build_list
from robustperf.cli.margins import build_attacks

MAKERS = {"one": lambda *args, **kwargs: ("one", args, kwargs), "strict": lambda a: a}


def test_names_and_calls():
    assert build_list("one, one(1, b=2.5), strict((1, True))", MAKERS) == [
        ("one", (), {}), ("one", (1,), {"b": 2.5}), (1, True),
    ]  # fmt: skip
    assert build_list("strict(inf)", MAKERS) == [math.inf]
    assert build_list("strict(-1)", MAKERS) == [-1]


@pytest.mark.parametrize("text, place, message", [
    ("one,two", 4, "expected one of one, strict"),
    ("one(", 4, "parenthesis"),
    ("one(x=y)", 6, "expected a number"),
    ("one, strict()", 5, "missing 1 required"),
    ("one, strict(__import__('os'))", 12, "expected a number"),
    ("", 0, "expected a comma-separated list"),
    ("one, one.two", 5, "expected one of"),
    ("one for x in y", 0, "expected a comma-separated list"),
])  # fmt: skip
def test_a_mistake_is_shown_in_its_place(text, place, message):
    with pytest.raises(ValueError) as caught:
        build_list(text, MAKERS)
    first, shown, caret = str(caught.value).splitlines()
    assert message in first
    assert shown == f"  {text}"
    assert caret == "  " + " " * place + "^"


def test_attacks_take_the_norm_of_the_run():
    assert build_attacks("fgsm,pgd,bg", 2) == [FGSM(), PGD(norm=2), BG(norm=2)]
    assert build_attacks("pgd,bg", math.inf) == [PGD(norm=math.inf), BG(norm=math.inf)]
    assert build_attacks("pgd,bg", 1) == [PGD(norm=2), BG(norm=1)]
    assert build_attacks("pgd(norm=inf, eps=0.1)", 2) == [PGD(norm=math.inf, eps=0.1)]


def test_an_attack_refuses_its_argument():
    with pytest.raises(ValueError, match=r"attacks: eps: expected a finite number above 0, got 0\n"):
        build_attacks("fgsm(eps=0)", 2)
