"""Models of other conventions and other libraries as classifiers from images in [0, 1] to logits."""

from typing import TYPE_CHECKING

from robustperf.lazy import lazily

if TYPE_CHECKING:
    from robustperf.adapters.named import load_model
    from robustperf.adapters.onnx_model import OnnxModel
    from robustperf.adapters.wrapped import Wrapped, wrap

__all__ = ["OnnxModel", "Wrapped", "load_model", "wrap"]

__getattr__, __dir__ = lazily(
    __name__, __all__, {"OnnxModel": "onnx_model", "Wrapped": "wrapped", "load_model": "named", "wrap": "wrapped"}
)
