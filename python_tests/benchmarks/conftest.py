"""`benchmarks/` on the path, last: its modules are imported as its programs import them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
