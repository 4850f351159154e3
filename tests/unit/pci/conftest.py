"""The simulated hardware is shared with the tests that run under MicroPython, too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "nano"))
