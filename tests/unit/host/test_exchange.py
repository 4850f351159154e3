"""The exchange disk, copies without holes, and images of disks on the operator's machine."""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xoar.host import config, disks, images, sparse, state
from xoar.host.errors import HostError
from xoar.host.exchange import ALIGNMENT, Exchange
from xoar.host.progress import Reporter

CONFIG = """
[drivers.disk0]
kind = "blkback"
size = "1GiB"
[drivers.net0]
kind = "netback"
"""


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XOAR_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XOAR_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def files() -> disks.DriverDisks:
    (found,) = disks.disks(state.Host("test"), config.parse(CONFIG, Path("xoar.toml")))
    return found


def used(path: Path) -> int:
    """Bytes that a file takes on the disk."""
    return path.stat().st_blocks * 512


# disks


def test_only_blkbacks_have_disks_and_they_are_sparse(files: disks.DriverDisks) -> None:
    assert files.driver == "disk0"
    assert (files.data.stat().st_size, used(files.data)) == (1 << 30, 0)
    assert files.exchange.stat().st_size == disks.EXCHANGE_SIZE
    assert files.exchange.open("rb").read(20) == b"XOAR-EXCHANGE 1\n\0\0\0\0"


def test_a_disk_that_is_there_is_left_as_it_is(files: disks.DriverDisks) -> None:
    files.data.write_bytes(b"data")
    larger = config.parse(CONFIG.replace("1GiB", "2GiB"), Path("xoar.toml"))
    assert disks.disks(state.Host("test"), larger) == [files]
    assert files.data.read_bytes() == b"data"


# the exchange disk


def test_what_is_put_on_the_disk_is_there_with_its_checksum_and_gone_afterwards(
    files: disks.DriverDisks, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    data = os.urandom(10_000)
    with open(source, "wb") as file:
        file.write(data)
        file.truncate(50 << 20)
        file.seek(40 << 20)
        file.write(b"more")
    whole = source.read_bytes()
    done: list[int] = []
    with Exchange(files.exchange) as exchange:
        area = exchange.put(source, done.append)
        with open(files.exchange, "rb") as file:
            file.seek(area.offset)
            assert file.read(area.length) == whole
        assert used(files.exchange) < 10 << 20
    assert (area.offset, area.length) == (1 << 20, 50 << 20)
    assert area.sha256.hex() == area.source == hashlib.sha256(whole).hexdigest()
    assert sum(done) == 50 << 20
    assert used(files.exchange) <= 1 << 20
    assert files.exchange.stat().st_size == disks.EXCHANGE_SIZE


def test_a_file_of_any_length_is_filled_up_with_zeros(files: disks.DriverDisks, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"abc")
    with Exchange(files.exchange) as exchange:
        area = exchange.put(source, lambda count: None)
    padded = b"abc".ljust(ALIGNMENT, b"\0")
    assert (area.length, area.sha256) == (ALIGNMENT, hashlib.sha256(padded).digest())
    assert area.source == hashlib.sha256(b"abc").hexdigest()


def test_what_a_killed_command_left_does_not_get_into_the_next_ones_image(
    files: disks.DriverDisks, tmp_path: Path
) -> None:
    with open(files.exchange, "r+b") as file:
        file.seek(disks.EXCHANGE_START)
        file.write(b"old" * 1000)
    source = tmp_path / "source"
    source.write_bytes(bytes(8192))
    with Exchange(files.exchange) as exchange:
        area = exchange.put(source, lambda count: None)
        with open(files.exchange, "rb") as file:
            file.seek(area.offset)
            assert not any(file.read(area.length))


def test_one_command_at_a_time_uses_the_disk(files: disks.DriverDisks) -> None:
    order = []

    def second() -> None:
        with Exchange(files.exchange):
            order.append("second")

    thread = threading.Thread(target=second)
    with Exchange(files.exchange):
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_an_export_with_another_checksum_leaves_no_file(files: disks.DriverDisks, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with Exchange(files.exchange) as exchange:
        with pytest.raises(HostError, match="SHA-256 differs"):
            exchange.get(target, 8192, bytes(32), lambda count: None)
        assert not target.exists()
        exchange.get(target, 8192, hashlib.sha256(bytes(8192)).digest(), lambda count: None)
    assert target.read_bytes() == bytes(8192)
    assert used(target) == 0


def test_what_is_no_exchange_disk_is_left_alone(files: disks.DriverDisks, tmp_path: Path) -> None:
    files.exchange.write_bytes(b"something else")
    with pytest.raises(HostError, match="does not begin with its mark"), Exchange(files.exchange):
        pass
    assert files.exchange.read_bytes() == b"something else"
    with pytest.raises(HostError, match="there is no exchange disk"), Exchange(tmp_path / "none"):
        pass


def test_a_file_without_room_is_refused(files: disks.DriverDisks, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with open(source, "wb") as file:
        file.truncate(disks.EXCHANGE_SIZE)
    with Exchange(files.exchange) as exchange, pytest.raises(HostError, match="too large"):
        exchange.put(source, lambda count: None)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 70_000)), max_size=6), st.integers(0, 5000))
def test_a_copy_is_what_was_copied(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[bool, int]], start: int
) -> None:
    folder = tmp_path_factory.mktemp("copy")
    with open(folder / "a", "wb") as file:
        for filled, size in parts:
            file.seek(size, os.SEEK_CUR) if not filled else file.write(b"x" * size)
        file.truncate(file.tell())
    whole = (folder / "a").read_bytes()
    start = min(start, len(whole))
    with open(folder / "a", "rb") as source, open(folder / "b", "wb") as target:
        length = len(whole) - start
        digest = sparse.copy(source.fileno(), start, length, target.fileno(), 0, lambda count: None)
        target.truncate(length)
    assert (folder / "b").read_bytes() == whole[start:]
    assert digest.digest() == hashlib.sha256(whole[start:]).digest()


# images


def qcow2(size: int, version: int = 3, backing: int = 0, incompatible: int = 0) -> bytes:
    head = struct.pack(">4sIQIIQ", b"QFI\xfb", version, backing, 0, 16, size)
    return head.ljust(72, b"\0") + struct.pack(">Q", incompatible) + bytes(200)


def test_formats_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(qcow2(5 << 30))
    assert images.inspect(file) == ("qcow2", 5 << 20)
    file.write_bytes(qcow2(1025, version=2))
    assert images.inspect(file) == ("qcow2", 2)
    file.write_bytes(b"x" * 4097)
    assert images.inspect(file) == ("raw", 8)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"KDMV" + bytes(600), "a VMDK image"),
        (b"\xfd7zXZ\0" + bytes(600), "compressed with xz"),
        (b"QFI\xfb", "cut short"),
        (qcow2(1 << 30, version=4), "version 4"),
        (qcow2(1 << 30, backing=512), "in another file"),
        (qcow2(1 << 30, incompatible=4), "in another file"),
        (qcow2(0), "an empty disk"),
    ],
)
def test_what_no_volume_can_be_made_from_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    with pytest.raises(HostError, match=reason):
        images.inspect(file)


@given(st.binary(max_size=300))
def test_any_file_has_a_format_or_is_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.mktemp("any") / "file"
    for content in (data, b"QFI\xfb" + data):
        file.write_bytes(content)
        try:
            assert images.inspect(file).size_kib > 0
        except HostError as error:
            assert str(file) in str(error)


def test_an_added_image_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    show = Reporter()
    file = tmp_path / "file"
    file.write_bytes(b"first" * 1000)
    images.add(file, "mine", "", show)
    file.write_bytes(b"second" * 1000)
    with pytest.raises(HostError, match="has the SHA-256"):
        images.add(file, "mine", "0" * 64, show)
    (kept,) = images.added()
    assert kept.sha256 == hashlib.sha256(b"first" * 1000).hexdigest()
    image = images.as_configured()["mine"]
    assert image.disk is not None and image.disk.read_bytes() == b"first" * 1000
    with pytest.raises(HostError, match="is no name for an image"):
        images.add(file, "../mine", "", show)


def test_a_files_checksum_is_computed_once_for_each_of_its_states(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    image = config.Image("mine", disk=file)
    for content in (b"one", b"other"):
        file.write_bytes(content)
        for _ in range(2):
            assert images.digest(image, file, Reporter()) == hashlib.sha256(content).hexdigest()
    assert capsys.readouterr().err.count("checking image mine: done") == 2
