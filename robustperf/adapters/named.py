"""Classifiers of other libraries by name, with their own preprocessing inside."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from robustperf.adapters.libraries import library_of
from robustperf.adapters.wrapped import Wrapped, wrap
from robustperf.names import LIBRARIES, check_name, did_you_mean


def load_model(model: str, *, pretrained: bool = True, num_classes: int | None = None) -> Wrapped:
    """A classifier of another library that takes images [B, C, H, W] in [0, 1] and returns logits [B, C].

    The library's mean and std are inside, and images of another size than the network's are resized (see `wrap`; the
    size is in `image_shape`). Cropping is left to the data set. The network is in eval mode.

    Args:
        model: "timm:NAME", a model of timm, such as "timm:resnet18.a1_in1k"; "hf:NAME", an image classifier of Hugging
            Face transformers, a name on its hub or a folder; "torchvision:NAME", a network of `torchvision.models` with
            its default weights; or "onnx:FILE", see `OnnxModel`. Each library is an extra: `robustperf[timm]`, ...
        pretrained: load the published weights, which the library may download. False: random weights.
        num_classes: the outputs of a new, random last layer; None for the network's own. torchvision takes it with
            pretrained=False only, ONNX not at all.

    Raises ValueError for an unknown name or a model that does not classify images; ModuleNotFoundError where the
    library is not installed; what the library raises where weights cannot be downloaded.

    >>> model = load_model("timm:resnet18")  # doctest: +SKIP
    >>> margins(model, images, attacks="fgsm,pgd,bg")  # doctest: +SKIP
    """
    library, _, name = model.partition(":") if isinstance(model, str) else ("", "", "")
    if not name:
        raise ValueError(f"model: expected LIBRARY:NAME, such as timm:resnet18, got {model!r}")
    check_name("model: library", library, LIBRARIES)
    return _LOADERS[library](name, pretrained, num_classes).eval()


def _timm(name: str, pretrained: bool, num_classes: int | None) -> Wrapped:
    timm = library_of("timm")
    if ":" not in name and not timm.is_model(name):  # "hf-hub:NAME" is looked up elsewhere
        raise _unknown("timm", name, timm.list_models())
    classes = {} if num_classes is None else {"num_classes": num_classes}
    network = timm.create_model(name, pretrained=pretrained, **classes)
    if not network.num_classes:
        raise ValueError(f"model: expected a classifier, got timm:{name}, which has no classes; pass num_classes")
    config = timm.data.resolve_model_data_config(network)
    return wrap(network, mean=config["mean"], std=config["std"], image_shape=config["input_size"])


def _hugging_face(name: str, pretrained: bool, num_classes: int | None) -> Wrapped:
    transformers = library_of("transformers", "hf")
    classes = {} if num_classes is None else {"num_labels": num_classes}
    config = transformers.AutoConfig.from_pretrained(name, **classes)
    makers = transformers.AutoModelForImageClassification
    if pretrained:
        network = makers.from_pretrained(name, config=config, ignore_mismatched_sizes=num_classes is not None)
    else:
        network = makers.from_config(config)
    kind = getattr(config, "problem_type", None)
    if config.num_labels < 2 or kind in ("regression", "multi_label_classification"):
        raise ValueError(
            f"model: expected a classifier with one label for each image, got hf:{name} with {config.num_labels} labels"
            + f" and the problem type {kind}" * (kind is not None)
        )
    if network.main_input_name != "pixel_values":
        raise ValueError(
            f"model: expected a classifier of images, got hf:{name}, which takes {network.main_input_name}"
        )
    processor = transformers.AutoImageProcessor.from_pretrained(name)
    shape = _size_of(processor)
    mean, std = _statistics_of(processor)
    channels = getattr(config, "num_channels", 3)
    return wrap(network, mean=mean, std=std, image_shape=None if shape is None else (channels, *shape))


def _statistics_of(processor: Any) -> tuple[list[float], list[float]]:
    """(mean, std) for images in [0, 1] of a processor of bytes: (rescale_factor * byte - offset - mean) / std."""
    mean, std = [0.0], [1.0]
    if getattr(processor, "do_normalize", False):
        mean, std = (_list_of(getattr(processor, f"image_{part}")) for part in ("mean", "std"))
    scale = 255 * processor.rescale_factor if getattr(processor, "do_rescale", False) else 255.0
    offset = 1.0 if getattr(processor, "rescale_offset", False) else 0.0
    return [(value + offset) / scale for value in mean], [value / scale for value in std]


def _list_of(value: Any) -> list[float]:
    return [float(each) for each in value] if isinstance(value, list | tuple) else [float(value)]


def _size_of(processor: Any) -> tuple[int, int] | None:
    """(H, W) that the processor returns; None where it changes no size."""
    if getattr(processor, "do_center_crop", False):
        size = processor.crop_size
    elif getattr(processor, "do_resize", False):
        size = processor.size
    else:
        return None
    if isinstance(size, int):
        return size, size
    entries = dict(size) if isinstance(size, Mapping) else vars(size)
    height = entries.get("height") or entries["shortest_edge"]
    return height, entries.get("width") or height


def _torchvision(name: str, pretrained: bool, num_classes: int | None) -> Wrapped:
    models = library_of("torchvision.models", "torchvision")
    known = models.list_models(module=models)  # without detection, segmentation and video
    if name not in known:
        raise _unknown("torchvision", name, known)
    if pretrained and num_classes is not None:
        raise ValueError(
            "num_classes: expected None with the pretrained weights of torchvision, which have classes of their own, "
            f"got {num_classes}; pass pretrained=False"
        )
    weights = models.get_model_weights(name).DEFAULT
    classes = {} if num_classes is None else {"num_classes": num_classes}
    network = models.get_model(name, weights=weights if pretrained else None, **classes)
    preset = weights.transforms()
    (size,) = preset.crop_size
    return wrap(network, mean=preset.mean, std=preset.std, image_shape=(3, size, size))


def _onnx(path: str, pretrained: bool, num_classes: int | None) -> Wrapped:
    from robustperf.adapters.onnx_model import OnnxModel

    if not pretrained or num_classes is not None:
        raise ValueError("model: expected no other option with onnx:FILE, whose weights are in the file")
    return wrap(OnnxModel(os.path.expanduser(path)))


_LOADERS = {"timm": _timm, "hf": _hugging_face, "torchvision": _torchvision, "onnx": _onnx}


def _unknown(library: str, name: str, known: list[str]) -> ValueError:
    return ValueError(f"model: expected a classifier of {library}, got {name!r}{did_you_mean(name, known)}")
