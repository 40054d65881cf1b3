import math

import pytest

from robustperf.attacks import BG, FGSM, PGD, ShrinkingBall
from robustperf.attacks.named import attacks_of
from robustperf.expression import build_list, build_sum

MAKERS = {"one": lambda *args, **kwargs: ("one", args, kwargs), "strict": lambda a: a}


def test_names_and_calls():
    assert build_list("one, one(1, b=2.5), strict((1, True))", MAKERS) == [
        ("one", (), {}), ("one", (1,), {"b": 2.5}), (1, True),
    ]  # fmt: skip
    assert build_list("strict(inf)", MAKERS) == [math.inf]
    assert build_list("strict(-1)", MAKERS) == [-1]
    for text in ("one", " one\n", "one()", "one,"):
        assert build_list(text, MAKERS) == [("one", (), {})]


def test_sums():
    assert build_sum("one + one(1, b=(-0.1, 2)) + strict(3)", MAKERS) == [
        ("one", (), {}), ("one", (1,), {"b": (-0.1, 2)}), 3,
    ]  # fmt: skip
    for text in ("one", " one ", "one()", "(one)"):
        assert build_sum(text, MAKERS) == [("one", (), {})]
    assert build_sum("strict(1)+(strict(2)\n+strict(3))+strict(4)", MAKERS) == [1, 2, 3, 4]


@pytest.mark.parametrize("text, value", [
    ("-0.5", -0.5), ("1e-3", 1e-3), ("inf", math.inf), ("True", True), ("None", None), ("'border'", "border"),
    ('"a + b, c"', "a + b, c"), ("(-0.1, 0.4)", (-0.1, 0.4)), ("((0, 1), None)", ((0, 1), None)), ("[1, 2]", [1, 2]),
])  # fmt: skip
def test_values(text, value):
    for build in (build_list, build_sum):
        assert build(f"strict({text})", MAKERS) == build(f"strict(a={text})", MAKERS) == [value]


BOTH = [
    ("one(", 3, "never closed"),
    ("one)", 3, "unmatched ')'"),
    ("one(]", 4, "does not match"),
    ("two", 0, "expected one of one, strict"),
    ("two(1)", 0, "expected one of one, strict"),
    ("one.two", 0, "expected one of"),
    ("one(1)(2)", 0, "expected one of"),
    ("-one", 0, "expected one of"),
    ("'one'", 0, "expected one of"),
    ("one(x=y)", 6, "expected a number"),
    ("one(1, [y])", 7, "expected a number"),
    ("one(*y)", 4, "expected a number"),
    ("one({[]: 1})", 4, "expected a number"),
    ("strict()", 0, "missing 1 required"),
    ("strict(b=1)", 0, "unexpected keyword"),
    ("strict(__import__('os'))", 7, "expected a number"),
    ("one for x in y", 4, "invalid syntax"),
    ("one one", 4, "invalid syntax"),
    ("one(3\u00b0)", 5, "invalid character"),
    ("one('x)", 4, "unterminated string"),
]


@pytest.mark.parametrize("build, text, place, message", [
    *[(build, *case) for case in BOTH for build in (build_list, build_sum)],
    (build_list, "one,two", 4, "expected one of one, strict"),
    (build_list, "one, strict()", 5, "missing 1 required"),
    (build_list, "one, one.two", 5, "expected one of"),
    (build_list, "one + one", 0, "expected one of"),
    (build_list, "one,,one", 4, "invalid syntax"),
    (build_sum, "one + two", 6, "expected one of one, strict"),
    (build_sum, "one*2", 3, "expected +"),
    (build_sum, "one(1)  - one", 8, "expected +"),
    (build_sum, "(one + one) * one + one", 12, "expected +"),
    (build_sum, "one + one*2", 9, "expected +"),
    (build_sum, "one, one", 3, "expected +, not a comma"),
    (build_sum, "one +", 5, "invalid syntax"),
    (build_sum, "one + + strict(1)", 6, "expected one of"),
])  # fmt: skip
def test_errors_point_at_the_position(build, text, place, message):
    with pytest.raises(ValueError) as caught:
        build(text, MAKERS)
    first, shown, caret = str(caught.value).splitlines()
    assert message in first
    assert shown == f"  {text}"
    assert caret == "  " + " " * place + "^"


@pytest.mark.parametrize("text", ["", "  ", "()"])
def test_empty_text(text):
    with pytest.raises(ValueError, match=r"^expected names separated by commas, got '.*'$"):
        build_list(text, MAKERS)
    with pytest.raises(ValueError, match=r"^expected names joined by \+, got '.*'$"):
        build_sum(text, MAKERS)


def test_attacks_take_the_norm_of_the_run():
    assert attacks_of("fgsm,pgd,bg", 2) == [FGSM(), PGD(norm=2), BG(norm=2)]
    assert attacks_of("pgd,bg", math.inf) == [PGD(norm=math.inf), BG(norm=math.inf)]
    assert attacks_of("pgd,bg", 1) == [PGD(norm=2), BG(norm=1)]
    assert attacks_of("pgd(norm=inf, eps=0.1)", 2) == [PGD(norm=math.inf, eps=0.1)]


def test_presets_choose_their_attacks_for_the_norm():
    assert attacks_of("tibo", 2) == [FGSM(), PGD(math.inf), BG(2)]
    assert attacks_of("tibo", 1) == [FGSM(), PGD(math.inf), BG(1)]
    for preset in ("fast", "strong"):
        for norm in (1, 2, math.inf):
            (attack,) = attacks_of(preset, norm)
            assert isinstance(attack, ShrinkingBall) and attack.norm == norm
    assert attacks_of("strong, bg", 2) == [*attacks_of("strong", 2), BG(2)]
    assert attacks_of(["fast", FGSM()], 1) == [*attacks_of("fast", 1), FGSM()]
    assert attacks_of("shrinking_ball(steps=3)", 1) == [ShrinkingBall(1, steps=3)]


def test_presets_have_no_settings_and_suggest_their_names():
    with pytest.raises(ValueError, match="unexpected keyword argument 'steps'"):
        attacks_of("strong(steps=3)", 2)
    with pytest.raises(ValueError, match="did you mean 'strong'"):
        attacks_of("strang", 2)


def test_wrong_arguments_of_an_attack():
    with pytest.raises(ValueError, match=r"attacks: eps: expected a finite number above 0, got 0\n"):
        attacks_of("fgsm(eps=0)", 2)
