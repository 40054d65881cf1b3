"""Stand-ins for libraries of networks."""

import sys
from types import ModuleType, SimpleNamespace

from torch import nn

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)


class Network(nn.Module):
    """Linear in 3 × 8 × 8 images; returns what `form` makes of the logits."""

    main_input_name = "pixel_values"

    def __init__(self, classes=3, form=lambda z: z):
        super().__init__()
        self.linear, self.num_classes, self.form = nn.Linear(192, classes), classes, form

    def forward(self, x):
        return self.form(self.linear(x.flatten(1)))


def stand_in(monkeypatch, name, **members):
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def stand_in_timm(monkeypatch, classes=3):
    """timm with one network, `Network` of so many classes; `calls` lists what it was asked for."""
    calls = []

    def create_model(name, pretrained, num_classes=classes):
        calls.append((name, pretrained, num_classes))
        return Network(num_classes)

    config = {"mean": MEAN, "std": STD, "input_size": (3, 8, 8), "interpolation": "bicubic", "crop_pct": 0.9}
    return stand_in(
        monkeypatch,
        "timm",
        create_model=create_model,
        calls=calls,
        is_model=lambda name: name.split(".")[0] == "resnet18",
        list_models=lambda: ["resnet18", "vit"],
        data=SimpleNamespace(resolve_model_data_config=lambda model: config),
    )
