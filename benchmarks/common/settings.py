"""The settings of a run in words, for titles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any


class Settings:
    """A base of dataclasses, whose text is "width 32, epochs 100": without the class's name, and without fields that
    are None or False."""

    def __str__(self) -> str:
        return ", ".join(_in_words({field.name: getattr(self, field.name) for field in fields(self)}))


def _in_words(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        name = name.replace("_", " ")
        if isinstance(value, Mapping):
            yield from _in_words({f"{name} {key}": each for key, each in value.items()})
        elif value is True:
            yield name
        elif value is not None and value is not False:
            yield f"{name} {' '.join(map(str, value)) if isinstance(value, list | tuple) else value}"
