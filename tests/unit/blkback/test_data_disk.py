"""Which of a controller's disks holds the volumes, however late they come."""

from __future__ import annotations

import pytest

from xoar.blkback import disks
from xoar.blkback.disks import Disk
from xoar.blkback.errors import DiskError


class Controller:
    """Disks that appear at their times (seconds), and what they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *there: tuple[float, str, str]) -> None:
        self.now = 0.0
        self.there = there
        monkeypatch.setattr(disks, "present", self.present)
        monkeypatch.setattr(disks, "look", lambda disk: {name: what for _, name, what in there}[disk.name])
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr("time.sleep", self.sleep)

    def present(self) -> list[Disk]:
        return [Disk(name, 1 << 30) for at, name, _ in self.there if at <= self.now]

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_ours_is_taken_at_once_and_a_blank_one_when_no_other_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = Controller(monkeypatch, (1.0, "sda", "blank"), (2.0, "sdb", "ours"))
    assert disks.data_disk(20)[0].name == "sdb" and controller.now < 2.5
    controller = Controller(monkeypatch, (0.0, "sda", "exchange"), (1.0, "sdb", "blank"))
    assert disks.data_disk(20)[0].name == "sdb" and 3 <= controller.now < 3.5


def test_one_that_comes_at_the_last_moment_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Controller(monkeypatch, (19.5, "sda", "blank"))
    assert disks.data_disk(20)[0].name == "sda"


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ((), "attach a blank disk"),
        (((19.9, "sda", "exchange"),), "attach a blank disk"),
        (((1.0, "sda", "is neither blank nor Xoar's"),), "sda is neither blank nor Xoar's; wipe"),
    ],
)
def test_none_is_an_error_that_says_what_there_is(
    there: tuple[tuple[float, str, str], ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Controller(monkeypatch, *there)
    with pytest.raises(DiskError, match=said):
        disks.data_disk(20)
