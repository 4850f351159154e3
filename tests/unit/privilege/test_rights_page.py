"""docs/rights.md is what tests/host/rights.py makes of the manifests."""

import subprocess
import sys

from xoar.host.cache import CHECKOUT


def test_the_page_of_rights_is_up_to_date() -> None:
    made = subprocess.run(
        [sys.executable, str(CHECKOUT / "tests/host/rights.py")], capture_output=True, text=True, check=True
    ).stdout
    assert (CHECKOUT / "docs/rights.md").read_text() == made, (
        "PYTHONPATH=src python tests/host/rights.py > docs/rights.md"
    )
