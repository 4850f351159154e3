"""The hosts of `xoar bench xenstore`, as far as they can be seen without starting them."""

from pathlib import Path

import pytest

from xoar.host.bench import xenstore
from xoar.host.config import Guest


@pytest.mark.parametrize(("daemon", "other"), [xenstore.DAEMONS, xenstore.DAEMONS[::-1]])
def test_domain_0_starts_one_xenstore(daemon: str, other: str) -> None:
    words = xenstore.init(daemon).split()
    assert words.count(daemon) == 2 and other not in words  # the second one is in its failure's message


def test_the_guest_is_the_one_whose_console_is_shown() -> None:
    settings = xenstore.settings(Guest("rate", "rate", memory_kib=16 << 10))
    assert 'name = "rate"' in settings and "memory = 16\n" in settings
    assert "$(xl domid rate)" in xenstore.init("xenstored")


def test_a_round_has_as_many_requests_as_are_counted() -> None:
    program = (
        Path(str(xenstore.__file__)).parents[2] / "shards/guest/store_rate.py"
    )  # it needs nano to be run
    assert f"\nREQUESTS = {xenstore._REQUESTS} " in program.read_text()
