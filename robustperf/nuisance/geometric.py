"""Affine warps about the image's centre, bilinear (R equation 4.2). delta = 0 is the identity, bit for bit.

`outside` is the padding, as in `torch.nn.functional.grid_sample`: "zeros" (black) or "border" (the nearest edge pixel).
"""

from __future__ import annotations

from robustperf.nuisance.program_kernel import ProgramKernel, box, span
from robustperf.ops.program import AFFINE_PARAMETERS, Outside, Program, Transform

Range = float | tuple[float, float]


class Affine(ProgramKernel):
    """Scaling, shear (x by y, then y by x), rotation, then translation. The components of delta are, in this order:
    rotation, translation along x and y, scale, shear along x and y.

    Args:
        rotation: degrees, counter-clockwise.
        translation: fractions of the width (to the right) and of the height (down).
        scale: 1 + delta is the zoom factor: delta = 0.2 enlarges the image 1.2 times. Above -1.
        shear: degrees, within [-80, 80]: x moves by tan(delta) y, y by tan(delta) x.
        outside: "zeros" or "border".

    Each range is a number a for [-a, a], bounds (lower, upper), or None to omit that part.

    Raises TypeError for a range that is neither, ValueError for an empty, infinite or too large range, for an unknown
    `outside`, and where all parts are omitted.

        Affine(rotation=15, translation=(0, 0.1), scale=None, shear=None)       # dim == 3

    >>> kernel = Affine(rotation=30, translation=0.1, scale=None, shear=None)
    >>> kernel.dim
    3
    >>> kernel.draw(torch.rand(2, 1, 8, 8), key=0, index=torch.arange(2), draws=5).shape
    torch.Size([5, 2, 1, 8, 8])
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
        """Sets `program`; `argument_of` has the constructor's argument for each of AFFINE_PARAMETERS, or None."""
        if outside not in ("zeros", "border"):
            raise ValueError(f"outside: expected 'zeros' or 'border', got {outside!r}")
        limits = {"scale": (-0.99, 99), "shear_x": (-80, 80), "shear_y": (-80, 80)}
        given, mask = [], 0
        for bit, (part, argument) in enumerate(zip(AFFINE_PARAMETERS, argument_of, strict=True)):
            if argument is not None and ranges[argument] is not None:
                given.append(span(argument, ranges[argument], *limits.get(part, ())))
                mask |= 1 << bit
        if not given:
            raise ValueError(f"{', '.join(ranges)}: expected at least one range, got none")
        padding = Outside.ZEROS if outside == "zeros" else Outside.BORDER
        self.program: Program = box(Transform.AFFINE, name, given, mask, padding)


class Rotation(Affine):
    """R(delta) x, R equation 4.2: counter-clockwise, in degrees.

    Args:
        degrees: delta in [-degrees, degrees], or its bounds.
        outside: "zeros" or "border".

    >>> x = torch.zeros(1, 1, 3, 3)
    >>> x[0, 0, 0] = 1  # the upper row
    >>> Rotation(90)(x, torch.tensor([[[90.0]]]))[0, 0, 0].round()
    tensor([[1., 0., 0.],
            [1., 0., 0.],
            [1., 0., 0.]])
    """

    def __init__(self, degrees: Range = 30.0, outside: str = "zeros") -> None:
        self._set("rotation", outside, {"degrees": degrees}, ("degrees", None, None, None, None, None))


class Translation(Affine):
    """x moved to the right by the fraction delta_1 of the width and down by the fraction delta_2 of the height.

    Args:
        x, y: their ranges, as for `Affine`; None omits an axis.
        outside: "zeros" or "border".

    >>> x = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    >>> Translation(x=0.5, y=None)(x, torch.tensor([[[0.5]]])).flatten()  # by half of the width
    tensor([0., 0., 1., 0.])
    """

    def __init__(self, x: Range | None = 0.1, y: Range | None = 0.1, outside: str = "zeros") -> None:
        self._set("translation", outside, {"x": x, "y": y}, (None, "x", "y", None, None, None))


class Scale(Affine):
    """x enlarged by the factor 1 + delta about its centre.

    Args:
        amount: delta in [-amount, amount], or its bounds, above -1.
        outside: "zeros" or "border".

    >>> Scale(0.2).draw(torch.rand(2, 1, 8, 8), key=0, index=torch.arange(2), draws=5).shape
    torch.Size([5, 2, 1, 8, 8])
    """

    def __init__(self, amount: Range = 0.2, outside: str = "zeros") -> None:
        self._set("scale", outside, {"amount": amount}, (None, None, None, "amount", None, None))


class Shear(Affine):
    """x sheared: each row moves by tan(delta_1) times its height along x, then each column by tan(delta_2) times its
    distance from the centre along y.

    Args:
        x, y: their ranges in degrees, within [-80, 80]; None omits an axis.
        outside: "zeros" or "border".

    >>> Shear(20).draw(torch.rand(2, 1, 8, 8), key=0, index=torch.arange(2), draws=5).shape
    torch.Size([5, 2, 1, 8, 8])
    """

    def __init__(self, x: Range | None = 20.0, y: Range | None = None, outside: str = "zeros") -> None:
        self._set("shear", outside, {"x": x, "y": y}, (None, None, None, None, "x", "y"))
