"""Image files (BMP, JPEG, PNG, PPM, WebP) through Pillow, which is told the format and how large is too large."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robustperf.files import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp")

# Pillow knows formats that start other programs; none of them is an image of a data set
_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "WEBP")
# 16-bit and float modes become RGB by clipping, which is another image
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def read_image(path: Path) -> Image:
    """The image at `path` as 8-bit RGB: grey repeated, an alpha channel left out, an EXIF orientation not applied.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: broken, of another format, with more than 8 bits a channel, or of more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`, which is asked before they are decoded.
    """
    from PIL import Image

    with open_regular(path) as file:
        try:
            with Image.open(file, formats=_FORMATS) as image:
                check_pixels("size", image.size)
                if image.mode not in _MODES:
                    raise ValueError(f"mode: expected 8 bits a channel, found {image.mode}")
                if _has_16_bits(image):
                    raise ValueError(f"mode: expected 8 bits a channel, found {image.mode} of 16")
                return image.convert("RGB")
        except Exception as error:  # Pillow's decoders raise what they come upon
            raise ValueError(f"{path}: not a sound image: {error}") from error


def _has_16_bits(image: Image) -> bool:
    """Whether Pillow would cut a channel's 16 bits down to 8, which the mode does not tell."""
    for *_, arguments in image.tile:
        mode, *numbers = (arguments,) if isinstance(arguments, str) else arguments
        if image.format == "PNG" and ";16" in mode or image.format == "PPM" and any(n > 255 for n in numbers):
            return True
    return False


def check_pixels(name: str, size: tuple[int, int]) -> None:
    """ValueError where an image of `size` (width, height) has more pixels than Pillow's limit."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and size[0] * size[1] > limit:
        raise ValueError(f"{name}: expected at most {limit:,} pixels, got {size[0]:,} x {size[1]:,}")


def read_squares(
    paths: Sequence[Path],
    size: int,
    boxes: Sequence[tuple[int, int, int, int]] | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> np.ndarray:
    """The images at `paths` as squares, by Pillow's bilinear filter (which averages where it shrinks).

    Args:
        paths: N files.
        size: the side in pixels.
        boxes: what to keep of each: left, upper, right, lower, the last two not included; None for all of it.
        sizes: (width, height) that each must have; None for any.

    Returns uint8 [N, size, size, 3]. Raises as `read_image` does, and ValueError for another size than promised or a
    box that does not lie in its image.
    """
    from PIL import Image

    images = np.empty((len(paths), size, size, 3), np.uint8)
    for row, path in enumerate(paths):
        image = read_image(path)
        if sizes is not None and image.size != sizes[row]:
            raise ValueError(
                f"{path}: expected {sizes[row][0]} x {sizes[row][1]} pixels, found {image.width} x {image.height}"
            )
        left, upper, right, lower = box = (0, 0, *image.size) if boxes is None else boxes[row]
        if not (0 <= left < right <= image.width and 0 <= upper < lower <= image.height):
            raise ValueError(f"{path}: expected a box within {image.width} x {image.height} pixels, got {box}")
        images[row] = image.crop(box).resize((size, size), Image.Resampling.BILINEAR)
    return images
