"""Image files (BMP, JPEG, PNG, PPM, WebP), read by Pillow with limits on formats and size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robustperf.files import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp")

# Pillow starts other programs for some formats; no data set uses them
_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "WEBP")
# not 16-bit and float modes: Pillow clips them to RGB, which changes the image
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def read_image(path: Path) -> Image:
    """The image at `path` as 8-bit RGB: grey is repeated, alpha is dropped, an EXIF orientation is ignored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged image, another format, more than 8 bits per channel, or more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`, which is checked before decoding.
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
        except Exception as error:  # Pillow's decoders raise many kinds of errors
            raise ValueError(f"{path}: not a valid image: {error}") from error


def _has_16_bits(image: Image) -> bool:
    """Whether Pillow would reduce 16-bit channels to 8 bits, which the mode does not show."""
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
    """The images at `paths` resized to squares by Pillow's bilinear filter, which averages when it shrinks.

    Args:
        paths: N files.
        size: the side in pixels.
        boxes: the part to keep of each, (left, upper, right, lower) with the last two excluded; None for all of it.
        sizes: the expected (width, height) of each; None for any.

    Returns uint8 [N, size, size, 3]. Raises as `read_image` does, and ValueError for an unexpected size or a box beyond
    its image.
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
