"""`robustperf info`: versions, and which backends are available."""

from __future__ import annotations

import platform
from importlib.metadata import version


def info() -> None:
    """Show versions, the CPU's instruction set, and each backend: available, or why not."""
    import torch
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from robustperf import _native
    from robustperf.ops import registry

    console = Console()
    table = Table(show_header=False, box=None)
    table.add_row("robustperf", version("robustperf"))
    for package in ("torch", "numpy", "scikit-learn"):
        table.add_row(package, version(package))
    table.add_row("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    table.add_row("instruction set", f"{_native.isa()} (supported: {', '.join(_native.isas())})")
    table.add_row("threads", str(torch.get_num_threads()))
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    table.add_row("GPUs", ", ".join(gpus) or "none usable by torch")
    console.print(table)

    table = Table("backend", "available")
    for backend in registry.BACKENDS:
        table.add_row(backend, Text(registry.missing(backend) or "yes"))
    console.print(table)

    devices = ["cpu"] + ["cuda"] * bool(gpus)
    table = Table("operation", *(f"default on {device}" for device in devices), "available backends")
    for op in registry.ops():
        able = [backend for backend in registry.BACKENDS if registry.missing_op(op, backend) is None]
        table.add_row(op, *(registry.default(op, device) for device in devices), ", ".join(able))
    console.print(table)
