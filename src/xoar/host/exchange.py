"""The operator's end of an exchange disk: an area of bytes that a BlkBack reads and writes (docs/devices.md).

One command at a time uses a disk. What it left there is dropped at its end, so that it takes no space; what
an earlier one that was killed left, at the beginning.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from xoar.host import sparse
from xoar.host.disks import EXCHANGE_MAGIC, EXCHANGE_SIZE, EXCHANGE_START
from xoar.host.errors import HostError, disk_errors
from xoar.host.tables import format_size

ALIGNMENT = 4096
"""What is put on the disk is filled up with zeros to a multiple of this, since it is read with O_DIRECT."""
ROOM = EXCHANGE_SIZE - EXCHANGE_START


@dataclass(frozen=True)
class Area:
    """Bytes on the disk and their SHA-256; `source` is that of the file they came from, without filling."""

    offset: int
    length: int
    sha256: bytes
    source: str


class Exchange:
    """An exchange disk, for the time of the block in which it is used. Waits while another command has it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Exchange:
        try:
            self._file = os.open(self._path, os.O_RDWR)
        except FileNotFoundError as error:
            raise HostError(
                f"there is no exchange disk {self._path}: images reach volumes over it",
                hint="Only emulated driver domains have one; xoar up makes it.",
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if os.pread(self._file, len(EXCHANGE_MAGIC), 0) != EXCHANGE_MAGIC:
                raise HostError(f"{self._path} is no exchange disk: it does not begin with its mark")
            self._drop()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._drop()
        finally:
            os.close(self._file)

    def put(self, source: Path, advance: sparse.Advance) -> Area:
        """Copies a file onto the disk. Raises HostError if it has no room for it."""
        with open(source, "rb") as file, disk_errors(self._path):
            size = os.fstat(file.fileno()).st_size
            length = -(-size // ALIGNMENT) * ALIGNMENT
            if length > ROOM:
                raise HostError(
                    f"{source} is too large for the exchange disk: it has room for {format_size(ROOM >> 10)}",
                    hint="Compress it: qemu-img convert -c -O qcow2 FILE NEW",
                )
            digest = sparse.copy(file.fileno(), 0, size, self._file, EXCHANGE_START, advance)
        own = digest.hexdigest()
        digest.update(bytes(length - size))
        return Area(EXCHANGE_START, length, digest.digest(), own)

    def get(self, target: Path, length: int, sha256: bytes, advance: sparse.Advance) -> None:
        """Copies what a BlkBack has put on the disk into a new file.

        Raises HostError, with no file left, if that has not this SHA-256; FileExistsError.
        """
        if not 0 <= length <= ROOM:
            raise HostError(f"{length} bytes do not fit on the exchange disk")
        with disk_errors(target):
            file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                digest = sparse.copy(self._file, EXCHANGE_START, length, file, 0, advance)
                os.ftruncate(file, length)
                if digest.digest() != sha256:
                    raise HostError(f"what arrived for {target} is not what was sent: its SHA-256 differs")
            except BaseException:
                target.unlink()
                raise
            finally:
                os.close(file)

    def _drop(self) -> None:
        # cutting a file off and making it longer again leaves a hole, on every file system
        os.ftruncate(self._file, EXCHANGE_START)
        os.ftruncate(self._file, EXCHANGE_SIZE)
