"""Errors of the command line: they name options where the library names arguments."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperArgument, TyperCommand

from robustperf.names import did_you_mean

INPUT_ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError)
"""What wrong input raises, and a computation that cannot continue."""

# argument of the library -> the option with another name
_ALIASES = {
    "name": "data",
    "x": "data",
    "train": "data",
    "root": "data-root",
    "key": "seed",
    "path": "out",
    "a": "from",
    "b": "to",
}


class CommandError(ValueError):
    """An input error, with options named instead of arguments."""


class Command(TyperCommand):
    """A subcommand whose errors name its options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if hasattr(error, "possibilities"):  # an unknown option: suggest the closest only
                known = [option for parameter in self.params for option in parameter.opts]
                error.message += did_you_mean(error.option_name, known)
                error.possibilities = None
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CommandError:
            raise
        except INPUT_ERRORS as error:
            raise CommandError(in_options(str(error), self)) from error


def in_options(message: str, command: TyperCommand) -> str:
    """The error message with options in place of the arguments that it names.

    These are at its beginning (`norm: expected ...`), in advice (`resume=True`, `root=DIR`) and in comparisons
    (`seed was 0 and is 1`). Text of the user is not changed.
    """
    options, values = {}, {}
    for parameter in command.params:
        if isinstance(parameter, TyperArgument):
            name, option = parameter.name, parameter.metavar
        else:
            option = max(parameter.opts, key=len)
            name = option.lstrip("-").replace("-", "_")
        options[name] = options[str(parameter.name)] = option
        values[name] = "" if getattr(parameter, "is_flag", False) else parameter.metavar
    for alias, name in _ALIASES.items():
        if name.replace("-", "_") in options:
            options.setdefault(alias, options[name.replace("-", "_")])
            values.setdefault(alias, values.get(name.replace("-", "_")))

    def instead(match: re.Match[str]) -> str:
        return options.get(match[1], match[1])

    def to_give(match: re.Match[str]) -> str:
        if match[1] not in values:
            return match[0]
        return f"{options[match[1]]} {values[match[1]] if values[match[1]] is not None else match[2]}".rstrip()

    first, *rest = re.sub(r"^\[Errno \d+\] (?=\w+: )", "", message).split("\n")
    first = re.sub(r"^(\w+)(?=: |\[\w+\]: )", instead, first)
    first = re.sub(r"(?<=[ (])(\w+)=(True|[A-Z]+)\b", to_give, first)
    first = re.sub(r"(?<=[:;] )(\w+)(?= was .* and is )", instead, first)
    return "\n".join([first, *rest])
