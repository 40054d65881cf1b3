"""Affine warps about the image's centre, bilinear (R equation 4.2). delta = 0 changes nothing, to the bit.

`outside` says what lies around the image: "zeros" (black, the pixels' bilinear neighbours) or "border" (its edge goes
on).
"""

from __future__ import annotations

from robustperf.nuisance.program_kernel import ProgramKernel, box, span
from robustperf.ops.program import AFFINE_PARAMETERS, Outside, Program, Transform

Range = float | tuple[float, float]


class Affine(ProgramKernel):
    """Scaled, sheared (x by y, then y by x), rotated, then moved; each with components of delta of its own, in this
    order: rotation, translation along x and y, scale, shear along x and y.

    Args:
        rotation: degrees, counter-clockwise.
        translation: shares of the width and of the height, right and down.
        scale: 1 + delta is the zoom: delta = 0.2 shows everything 1.2 times as large; above -1.
        shear: degrees, within 80: x moves by tan(delta) y, y by tan(delta) x.
        outside: "zeros" or "border".

    Each range is a number a for [-a, a], bounds (lower, upper), or None to leave the part out.
    """

    def __init__(
        self,
        rotation: Range | None = 30.0,
        translation: Range | None = 0.1,
        scale: Range | None = 0.2,
        shear: Range | None = 20.0,
        outside: str = "zeros",
    ) -> None:
        self._set(
            "affine",
            outside,
            {"rotation": rotation, "translation": translation, "scale": scale, "shear": shear},
            ("rotation", "translation", "translation", "scale", "shear", "shear"),
        )

    def _set(
        self, name: str, outside: str, ranges: dict[str, Range | None], argument_of: tuple[str | None, ...]
    ) -> None:
        """`argument_of`: which of the constructor's arguments gives each of AFFINE_PARAMETERS."""
        if outside not in ("zeros", "border"):
            raise ValueError(f"outside: expected 'zeros' or 'border', got {outside!r}")
        limits = {"scale": (-0.99, 99), "shear_x": (-80, 80), "shear_y": (-80, 80)}
        given, mask = [], 0
        for bit, (part, argument) in enumerate(zip(AFFINE_PARAMETERS, argument_of, strict=True)):
            if argument is not None and ranges[argument] is not None:
                given.append(span(argument, ranges[argument], *limits.get(part, ())))
                mask |= 1 << bit
        if not given:
            raise ValueError(f"{', '.join(ranges)}: expected a range for one at least, got none")
        around = Outside.ZEROS if outside == "zeros" else Outside.BORDER
        self.program: Program = box(Transform.AFFINE, name, given, mask, around)


class Rotation(Affine):
    """R(delta) x, R equation 4.2: counter-clockwise, in degrees.

    Args:
        degrees: delta in [-degrees, degrees], or its bounds.
        outside: "zeros" or "border".
    """

    def __init__(self, degrees: Range = 30.0, outside: str = "zeros") -> None:
        self._set("rotation", outside, {"degrees": degrees}, ("degrees", None, None, None, None, None))


class Translation(Affine):
    """x moved to the right by delta_1 of the width and down by delta_2 of the height.

    Args:
        x, y: their ranges; None leaves an axis out.
        outside: "zeros" or "border".
    """

    def __init__(self, x: Range | None = 0.1, y: Range | None = 0.1, outside: str = "zeros") -> None:
        self._set("translation", outside, {"x": x, "y": y}, (None, "x", "y", None, None, None))


class Scale(Affine):
    """x zoomed by 1 + delta.

    Args:
        amount: delta in [-amount, amount], or its bounds, above -1.
        outside: "zeros" or "border".
    """

    def __init__(self, amount: Range = 0.2, outside: str = "zeros") -> None:
        self._set("scale", outside, {"amount": amount}, (None, None, None, "amount", None, None))


class Shear(Affine):
    """x sheared: columns move by tan(delta_1) a row, then rows by tan(delta_2) a column.

    Args:
        x, y: their ranges in degrees, within 80; None leaves an axis out.
        outside: "zeros" or "border".
    """

    def __init__(self, x: Range | None = 20.0, y: Range | None = None, outside: str = "zeros") -> None:
        self._set("shear", outside, {"x": x, "y": y}, (None, None, None, None, "x", "y"))
