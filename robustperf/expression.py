"""Objects from text: lists such as `fgsm, pgd(eps=2, steps=20)` and sums such as `rotation(30) +
brightness((-0.1, 0.4))`; errors point at the position in the text."""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from robustperf.names import did_you_mean

Makers = Mapping[str, Callable[..., Any]]


def build_list(text: str, makers: Makers) -> list[Any]:
    """One object per name in `text`, made by `makers[name](*args, **kwargs)` with the literals in brackets.

    Raises ValueError that points at the position of an unknown name, of an argument that is not a literal, or of one
    that the maker refuses.

    >>> build_list("complex(1, 2)", {"complex": complex})
    [(1+2j)]
    """
    tree, text = _parsed(text, "names separated by commas")
    return [_make(item, text, makers) for item in (tree.elts if isinstance(tree, ast.Tuple) else [tree])]


def build_sum(text: str, makers: Makers) -> list[Any]:
    """As `build_list`, for names joined by +."""
    tree, text = _parsed(text, "names joined by +")
    return [_make(term, text, makers) for term in _terms(tree, text)]


def _parsed(text: str, expected: str) -> tuple[ast.expr, str]:
    """The expression, and the line that its positions refer to."""
    text = " ".join(text.split("\n")).strip()
    if not text.strip(" ()"):
        raise ValueError(f"expected {expected}, got {text!r}")
    try:
        return ast.parse(text, mode="eval").body, text
    except (RecursionError, MemoryError):
        raise ValueError(f"expected {expected}, got brackets or signs nested too deeply") from None
    except SyntaxError as error:  # offset 0: the text ends too early
        raise _at(text, (error.offset or len(text) + 1) - 1, error.msg) from None


def _terms(tree: ast.expr, text: str) -> list[ast.expr]:
    """The terms of a sum, from left to right."""
    if isinstance(tree, ast.Tuple):
        raise _at(text, _after(tree.elts[0], text), "expected +, not a comma")
    if not isinstance(tree, ast.BinOp):
        return [tree]
    if not isinstance(tree.op, ast.Add):
        raise _at(text, _after(tree.left, text), "expected +")
    return _terms(tree.left, text) + _terms(tree.right, text)


def _after(node: ast.expr, text: str) -> int:
    """The position after a node, past spaces and closing brackets."""
    rest = text[node.end_col_offset :]
    return len(text) - len(rest.lstrip(" )"))


def _make(item: ast.expr, text: str, makers: Makers) -> Any:
    call = item if isinstance(item, ast.Call) else ast.Call(item, [], [])
    place = item.col_offset
    if not isinstance(call.func, ast.Name) or call.func.id not in makers:
        close = did_you_mean(getattr(call.func, "id", None), makers)
        raise _at(text, place, f"expected one of {', '.join(makers)}{close}")
    arguments = [_value(argument, text) for argument in call.args]
    keywords = {keyword.arg: _value(keyword.value, text) for keyword in call.keywords}
    try:
        return makers[call.func.id](*arguments, **keywords)
    except (TypeError, ValueError) as error:
        raise _at(text, place, f"{error}{_argument_meant(error, makers[call.func.id])}") from error


def _argument_meant(error: Exception, maker: Callable[..., Any]) -> str:
    """A suggestion for an argument that `maker` does not know."""
    unknown = re.search(r"unexpected keyword argument '(\w+)'$", str(error))
    return did_you_mean(unknown[1], inspect.signature(maker).parameters) if unknown else ""


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Name) and node.id == "inf":
        return math.inf
    try:
        return ast.literal_eval(node)
    except (TypeError, ValueError):
        raise _at(
            text, node.col_offset, "expected a number, a quoted string, True, False, None or a tuple of these"
        ) from None


def _at(text: str, place: int, message: str) -> ValueError:
    place = min(max(place, 0), len(text))
    return ValueError(f"{message}\n  {text}\n  {' ' * place}^")
