"""Lists such as `fgsm, pgd(eps=2, steps=20)` from the command line; a mistake is shown in its place."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from typing import Any


def build_list(text: str, makers: Mapping[str, Callable[..., Any]]) -> list[Any]:
    """One object for each name in `text`, made by `makers[name](*args, **kwargs)` with the literals in brackets.

    Raises ValueError that points at the place: a name that is not known, an argument that is no literal, or one that
    its maker refuses.
    """
    try:
        tree = ast.parse(f"[{text}]", mode="eval")
    except SyntaxError as error:
        raise _at(text, (error.offset or 1) - 2, error.msg) from None
    if not isinstance(tree.body, ast.List) or not tree.body.elts:
        raise _at(text, 0, "expected a comma-separated list")
    return [_make(item, text, makers) for item in tree.body.elts]


def _make(item: ast.expr, text: str, makers: Mapping[str, Callable[..., Any]]) -> Any:
    call = item if isinstance(item, ast.Call) else ast.Call(item, [], [])
    place = item.col_offset - 1
    if not isinstance(call.func, ast.Name) or call.func.id not in makers:
        raise _at(text, place, f"expected one of {', '.join(makers)}")
    arguments = [_value(argument, text) for argument in call.args]
    keywords = {keyword.arg: _value(keyword.value, text) for keyword in call.keywords}
    try:
        return makers[call.func.id](*arguments, **keywords)
    except (TypeError, ValueError) as error:
        raise _at(text, place, str(error)) from error


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Name) and node.id == "inf":
        return math.inf
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise _at(text, node.col_offset - 1, "expected a number, True, False or a tuple of these") from None


def _at(text: str, place: int, message: str) -> ValueError:
    place = min(max(place, 0), len(text))
    return ValueError(f"{message}\n  {text}\n  {' ' * place}^")
