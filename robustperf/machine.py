"""The machine that a result was computed on."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """The CPU's name, with family and model number, since some hypervisors give one name to several generations."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    lines = text.partition("\n\n")[0].splitlines()
    entries = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "model name" not in entries:
        return platform.processor() or platform.machine() or "unknown processor"
    numbers = [f"{key.split()[-1]} {entries[key]}" for key in ("cpu family", "model") if key in entries]
    return ", ".join([entries["model name"], *numbers])
