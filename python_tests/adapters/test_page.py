"""The Python examples of docs/adapters.md run as they stand there, each on its own."""

import re
from pathlib import Path

import pytest
import torch

PAGE = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_runs(number, capsys):
    torch.manual_seed(0)
    exec(compile(EXAMPLES[number], f"adapters.md, example {number + 1}", "exec"), {})
    assert ("Margins(n=", "torch.Size([4, 2])\nMargins(n=4", "Margins(n=20")[number] in capsys.readouterr().out
