"""Random colours by other libraries, with parameters for each image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.4, 0.1

Jitter = Callable[[torch.Tensor], torch.Tensor]
"""x [B, 3, H, W] in [0, 1] -> images of that shape."""


def colour_peers() -> dict[str, Jitter]:
    """Brightness, contrast, saturation and hue by the libraries that are installed, by name, from equal ranges."""
    return _kornia() | _albumentations()


def _kornia() -> dict[str, Jitter]:
    try:
        from kornia.augmentation import ColorJitter
    except ImportError:
        return {}
    return {"kornia": ColorJitter(BRIGHTNESS, CONTRAST, SATURATION, HUE, p=1.0, same_on_batch=False)}


def _albumentations() -> dict[str, Jitter]:
    """One image at a time, as it works; float32 images of [H, W, 3]."""
    try:
        from albumentations import ColorJitter
    except ImportError:
        return {}
    jitter = ColorJitter(BRIGHTNESS, CONTRAST, SATURATION, HUE, p=1.0)

    def run(x: torch.Tensor) -> torch.Tensor:
        images = np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())
        done = np.stack([jitter(image=image)["image"] for image in images])
        return torch.from_numpy(done).permute(0, 3, 1, 2)

    return {"albumentations": run}
