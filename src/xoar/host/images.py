"""Images of disks on the operator's machine: those that `xoar image add` keeps, and what is in such a file.

The store is one folder per image, `.images/NAME/`, beside the hosts' folders: all hosts can use them.
"""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from xoar.host import cache, sparse, state
from xoar.host.config import DEBIAN_DISK, IMAGE_NAME, Image
from xoar.host.errors import HostError, disk_errors

if TYPE_CHECKING:
    from xoar.host.progress import Reporter

RAW = "raw"
QCOW2 = "qcow2"

_STORE = ".images"  # no host can have this name
_DISK = "disk"
_RECORD = "image.json"
# how files begin that are neither, and what to call them
_FOREIGN = {
    b"KDMV": "a VMDK image",
    b"vhdxfile": "a VHDX image",
    b"conectix": "a VHD image",
    b"QED\0": "a QED image",
    b"\x1f\x8b": "compressed with gzip",
    b"\xfd7zXZ\0": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PK\x03\x04": "a ZIP archive",
}
# qcow2 (QEMU's docs/interop/qcow2.txt): magic, version, backing file's offset and size, cluster bits, size
_QCOW2 = ">4sIQIIQ"
_QCOW2_INCOMPATIBLE = 72  # where the bits of features are that a reader must know, since version 3
_EXTERNAL_DATA = 1 << 2


class DiskFile(NamedTuple):
    """The format of a file, and the size of the disk in it."""

    format: str
    size_kib: int


class Added(msgspec.Struct, frozen=True):
    """`image.json`: an image in the store; `sha256` in hexadecimal, `size` of the file in bytes."""

    name: str
    format: str
    size_kib: int
    size: int
    sha256: str


def inspect(path: Path) -> DiskFile:
    """What a file holds, by its first bytes. Raises HostError for one that no volume can be made from."""
    try:
        with open(path, "rb") as file:
            head = file.read(104)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise HostError(f"can't read {path}: {error.strerror}") from error
    if head.startswith(b"QFI\xfb"):
        return DiskFile(QCOW2, _qcow2_size_kib(path, head))
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            raise HostError(
                f"{path} is {what}",
                hint="Unpack it, or convert it: qemu-img convert -O qcow2 FILE NEW",
            )
    if size == 0:
        raise HostError(f"{path} is empty")
    return DiskFile(RAW, -(-size // 4096) * 4)


def _qcow2_size_kib(path: Path, head: bytes) -> int:
    if len(head) < 104:
        raise HostError(f"{path} is a qcow2 image that is cut short")
    _, version, backing, _, _, size = struct.unpack_from(_QCOW2, head)
    (incompatible,) = struct.unpack_from(">Q", head, _QCOW2_INCOMPATIBLE) if version >= 3 else (0,)
    flatten = "Make it whole: qemu-img convert -O qcow2 FILE NEW"
    if version not in (2, 3):
        raise HostError(f"{path} is a qcow2 image of version {version}; 2 and 3 are known", hint=flatten)
    if backing or incompatible & _EXTERNAL_DATA:
        raise HostError(f"{path} is not whole: a part of its disk is in another file", hint=flatten)
    if size == 0:
        raise HostError(f"{path} is a qcow2 image of an empty disk")
    return -(-int(size) // 1024)


# the store


def add(file: Path, name: str, sha256: str, show: Reporter) -> Added:
    """Copies a file into the store, in place of an image of that name. Raises HostError.

    `sha256` is what it must have, "": anything.
    """
    if not IMAGE_NAME.fullmatch(name):
        raise HostError(f'"{name}" is no name for an image: use up to 32 of a-z, 0-9, _ . -')
    kind = inspect(file)
    final = _folder(name)
    new = final.with_name(f".{name}")
    with disk_errors(new):
        final.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.rmtree(new, ignore_errors=True)  # of a command that was killed
        new.mkdir()
        try:
            with open(file, "rb") as source, open(new / _DISK, "wb") as target:
                size = os.fstat(source.fileno()).st_size
                with show.step(f"adding image {name}", size) as step:
                    digest = sparse.copy(source.fileno(), 0, size, target.fileno(), 0, step.advance)
                target.truncate(size)
            found = digest.hexdigest()
            if sha256 and found != sha256:
                raise HostError(f"{file} has the SHA-256 {found}, not {sha256}", hint="Load it down again.")
            added = Added(name, kind.format, kind.size_kib, size, found)
            (new / _RECORD).write_bytes(msgspec.json.encode(added))
            shutil.rmtree(final, ignore_errors=True)
            new.rename(final)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return added


def remove(name: str) -> None:
    """Takes an image out of the store. Raises KeyError if there is none."""
    if not (_folder(name) / _RECORD).is_file():
        raise KeyError(name)
    shutil.rmtree(_folder(name))


def added() -> list[Added]:
    """The images in the store, by name."""
    records = sorted((state.root() / _STORE).glob(f"[!.]*/{_RECORD}"))
    return [msgspec.json.decode(record.read_bytes(), type=Added) for record in records]


def as_configured() -> dict[str, Image]:
    """The images in the store as if a configuration declared them."""
    return {
        entry.name: Image(entry.name, command_line="", disk=_folder(entry.name) / _DISK, sha256=entry.sha256)
        for entry in added()
    }


def _folder(name: str) -> Path:
    return state.root() / _STORE / name


# the file of an image


def file(image: Image, show: Reporter) -> Path:
    """The file of an image of a disk; built if Xoar builds it. Raises HostError."""
    if image.builtin == DEBIAN_DISK:
        return build_debian(show)
    assert image.disk is not None
    return image.disk


def build_debian(show: Reporter) -> Path:
    """The image of Debian that Xoar builds, from the cache if it is there. Raises HostError."""
    # with these comes all that builds, which few commands need
    from xoar.host.apt import Apt
    from xoar.host.build import disk

    return disk.debian(Apt(show), show)


def digest(image: Image, path: Path, show: Reporter) -> str:
    """The SHA-256 of an image's file: as configured, else computed once for each state of the file."""
    if image.sha256:
        return image.sha256
    about = path.stat()
    key = cache.key(str(path.resolve()), f"{about.st_ino} {about.st_size} {about.st_mtime_ns}")
    known = cache.root() / "digests" / key
    if known.is_file():
        return known.read_text()
    with open(path, "rb") as opened, show.step(f"checking image {image.name}", about.st_size) as step:
        found = sparse.sha256(opened.fileno(), about.st_size, step.advance)
    with disk_errors(known):
        known.parent.mkdir(parents=True, exist_ok=True)
        known.with_suffix(".new").write_text(found)
        known.with_suffix(".new").replace(known)
    return found
