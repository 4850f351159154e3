"""Guest images: the cpio archive as the cpio program reads it, kernels out of bzImages."""

import bz2
import gzip
import lzma
import stat
import struct
import subprocess

import lz4.block  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from xoar.host import bzimage, cpio
from xoar.host.apt import Apt
from xoar.host.build import guest
from xoar.host.errors import HostError
from xoar.host.progress import Reporter

names = st.text(alphabet="abcxyz.-_", min_size=1, max_size=20).filter(lambda name: name not in (".", ".."))


def members(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """A second, independent reader: {path: (mode, data)}."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = archive[at + 110 : at + 109 + fields[11]].decode()
        data_at = (at + 110 + fields[11] + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], archive[data_at : data_at + fields[6]])
        at = (data_at + fields[6] + 3) & ~3


@given(st.dictionaries(names, st.binary(max_size=100), max_size=8))
def test_files_come_back_out_of_an_archive(files: dict[str, bytes]) -> None:
    archive = cpio.archive(cpio.file(f"top/{name}", data) for name, data in files.items())
    assert len(archive) % 512 == 0
    found = members(archive)
    assert {name: data for name, (mode, data) in found.items() if stat.S_ISREG(mode)} == {
        f"top/{name}": data for name, data in files.items()
    }


def test_missing_folders_are_added_before_what_is_in_them() -> None:
    paths = list(members(cpio.archive([cpio.file("a/b/c", b""), cpio.file("a/d", b"")])))
    assert paths == ["a", "a/b", "a/b/c", "a/d"]


def test_the_cpio_program_reads_the_archive() -> None:
    show = Reporter()
    busybox = guest.busybox(Apt(show), show)
    archive = cpio.archive(
        [
            cpio.symlink("bin/sh", "busybox"),
            cpio.character_device("dev/console", 5, 1),
            cpio.directory("tmp", 0o1777),
        ]
    )
    done = subprocess.run([busybox, "cpio", "-tv"], input=archive, capture_output=True, check=True)
    listing = done.stdout.decode()
    assert "bin/sh -> busybox" in listing
    assert "drwxrwxrwt" in listing and "dev/console" in listing


def elf(body: bytes = b"kernel code") -> bytes:
    """An ELF64 file with one segment, and sections and rubbish behind it."""
    header = bytearray(64)
    header[:5] = b"\x7fELF\x02"
    struct.pack_into("<QQ", header, 32, 64, 64 + 56 + len(body))
    struct.pack_into("<HHHHH", header, 54, 56, 1, 64, 5, 4)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 120, 0, 0, len(body), len(body), 1)
    return bytes(header) + segment + body + b"sections" * 40


def bz_image(payload: bytes, version: int = 0x20F) -> bytes:
    image = bytearray(1024 + 16)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, version)
    struct.pack_into("<II", image, 0x248, 16, len(payload))
    return bytes(image) + payload


def lz4_legacy(data: bytes) -> bytes:
    block: bytes = lz4.block.compress(data, store_size=False)
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block


SIZE = struct.pack("<I", len(elf()))  # follows all formats but gzip


@pytest.mark.parametrize(
    "payload",
    [
        gzip.compress(elf()),
        lzma.compress(elf()) + SIZE,
        lzma.compress(elf(), format=lzma.FORMAT_ALONE) + SIZE,
        bz2.compress(elf()) + SIZE,
        zstandard.compress(elf()) + SIZE,
        lz4_legacy(elf()) + SIZE,
        elf(),
    ],
    ids=["gzip", "xz", "lzma", "bzip2", "zstd", "lz4", "none"],
)
def test_a_kernel_comes_out_of_every_compression_without_sections(payload: bytes) -> None:
    kernel = bzimage.vmlinux(bz_image(payload))
    assert kernel.endswith(b"kernel code")
    assert kernel[:5] == b"\x7fELF\x02"
    assert struct.unpack_from("<Q", kernel, 40) == (0,)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "not a Linux bzImage"),
        (bytes(4096), "not a Linux bzImage"),
        (bz_image(b"????"), "unknown format"),
        (bz_image(elf(), version=0x207), "older than 2.08"),
        (bz_image(gzip.compress(b"something else")), "not a 64-bit ELF"),
        (bz_image(elf()[:125]), "cut short"),
        (bz_image(b"\x1f\x8b" + bytes(20)), "can't be decompressed"),
        (bz_image(b"\x02\x21\x4c\x18" + b"\xff" * 12), "can't be decompressed"),
    ],
)
def test_what_is_no_kernel_is_refused(image: bytes, message: str) -> None:
    with pytest.raises(HostError, match=message):
        bzimage.vmlinux(image)


@given(
    st.binary(max_size=64),
    st.sampled_from([b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18", b"\x7fELF"]),
)
def test_damaged_kernels_raise_nothing_else(data: bytes, magic: bytes) -> None:
    with pytest.raises(HostError):
        bzimage.vmlinux(bz_image(magic + data))
