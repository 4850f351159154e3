"""Makes the store with tenants available, which the tests of BlkBack use, too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "blkback"))
