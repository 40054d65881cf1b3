"""The measurements of `robustperf bench`: `common` and `speed` of the repository's folder `benchmarks`.

A wheel has both in this folder (`setup.py` maps them there); in a checkout they are found where they are.
"""

from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2] / "benchmarks"
if not Path(__file__).with_name("speed").is_dir() and (_CHECKOUT / "speed").is_dir():
    __path__: list[str] = [*__path__, str(_CHECKOUT)]  # type: ignore[has-type]
