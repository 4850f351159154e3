"""Images between the exchange disk and volumes.

What is on the exchange disk is the operator's, and the operator is trusted; the SHA-256 finds what a
transfer has damaged. A raw image is hashed as it is copied. A qcow2 image is read twice, to be hashed and by
qemu-img; a volume whose image has the wrong SHA-256 is removed before anybody could see it.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator

from xoar.blkback import direct, disks, names, qcow2
from xoar.blkback.errors import CommandError, RequestError
from xoar.blkback.requests import ALIGNMENT, Request
from xoar.blkback.volumes import Volumes

Progress = Callable[[int], object]
"""Takes the percentage that is done, 0 to 100."""

_BUFFER = 1 << 20
_BLOCK = 64 << 10  # zeros are looked for in such blocks: the smallest chunk of a pool
_ZEROS = bytes(_BLOCK)
_CACHE = 1 << 20  # bytes of qcow2 tables that qemu-img keeps
_PERCENT = re.compile(rb"\((\d+)\.\d+/100%\)")


def import_image(volumes: Volumes, request: Request, progress: Progress) -> None:
    """Makes a volume of an image on the exchange disk. Raises RequestError, OSError."""
    with _exchange(request) as (path, source):
        size = request.length
        if request.format == "qcow2":
            size = _qcow2_size(source, request)
        if size > request.size << 10:
            raise RequestError(
                errno.EINVAL, f"the image has {size} bytes, more than the volume's {request.size << 10}"
            )
        with volumes.unfinished(request.name, request.size) as target:
            if request.format == "raw":
                digest = _copy(volumes, source, request, target, progress)
                _compare(digest, request)
            else:
                _compare(_hash(source, request, lambda percent: progress(percent // 2)), request)
                _convert(volumes, path, request, target, lambda percent: progress(50 + percent // 2))
            with direct.Device(target, write=True) as device:
                device.flush()


def export_image(volumes: Volumes, request: Request, progress: Progress) -> str:
    """Writes a volume to the exchange disk; the words of the reply. Raises RequestError, OSError."""
    length = volumes.get(request.name).size_kib << 10
    if length > request.length:
        raise RequestError(
            errno.ENOSPC,
            f"volume {request.name} has {length} bytes, there is room for {request.length}",
        )
    with _exchange(request, write=True) as (_, target), _source(request.name) as source:
        digest = hashlib.sha256()
        with direct.buffer(_BUFFER) as memory:
            for at, count in _pieces(length):
                with memoryview(memory)[:count] as piece:
                    source.read(piece, at)
                    digest.update(piece)
                    target.write(piece, request.offset + at)
                progress(at * 100 // length)
        target.flush()
    return f"length={length} sha256={digest.hexdigest()}"


@contextlib.contextmanager
def _exchange(request: Request, write: bool = False) -> Iterator[tuple[str, direct.Device]]:
    disk = disks.exchange_disk()
    if disk is None:
        raise RequestError(errno.ENODEV, "there is no exchange disk on this controller")
    end = request.offset + _rounded(request.length)
    if end > disk.size:
        raise RequestError(
            errno.EINVAL, f"bytes {request.offset} to {end}: the exchange disk ends at {disk.size}"
        )
    with direct.Device(disk.path, write=write) as device:
        yield disk.path, device


def _source(name: str) -> direct.Device:
    return direct.Device(names.path(name))


def _rounded(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


def _pieces(length: int) -> Iterator[tuple[int, int]]:
    for at in range(0, length, _BUFFER):
        yield at, min(_BUFFER, length - at)


def _read(
    source: direct.Device, request: Request, memory: memoryview, progress: Progress
) -> Iterator[tuple[int, int]]:
    """Reads an image into a buffer piece by piece; (offset, bytes) of each, which zeros follow up to the next
    multiple of 4096."""
    for at, count in _pieces(request.length):
        rounded = _rounded(count)
        source.read(memory[:rounded], request.offset + at)
        memory[count:rounded] = bytes(rounded - count)
        yield at, count
        progress((at + count) * 100 // request.length)


def _hash(source: direct.Device, request: Request, progress: Progress) -> str:
    digest = hashlib.sha256()
    with direct.buffer(_BUFFER) as memory, memoryview(memory) as view:
        for _, count in _read(source, request, view, progress):
            digest.update(view[:count])
    return digest.hexdigest()


def _copy(volumes: Volumes, source: direct.Device, request: Request, target: str, progress: Progress) -> str:
    """Copies an image to an empty volume, zeros left out; its SHA-256."""
    digest = hashlib.sha256()
    with (
        direct.Device(target, write=True) as device,
        direct.buffer(_BUFFER) as memory,
        memoryview(memory) as view,
    ):
        for at, count in _read(source, request, view, progress):
            digest.update(view[:count])
            for start, end in runs(memory[: _rounded(count)]):
                _require_room(volumes)
                device.write(view[start:end], at + start)
    return digest.hexdigest()


def runs(data: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) of the parts of some bytes that are not zero, in steps of 64 KiB."""
    start = None
    for at in range(0, len(data), _BLOCK):
        block = data[at : at + _BLOCK]
        zero = block == _ZEROS[: len(block)]
        if start is None and not zero:
            start = at
        elif start is not None and zero:
            yield start, at
            start = None
    if start is not None:
        yield start, len(data)


def _require_room(volumes: Volumes) -> None:
    if not volumes.pool().room:
        raise RequestError(errno.ENOSPC, "the pool has no room for the whole image")


def _compare(digest: str, request: Request) -> None:
    if digest != request.sha256:
        raise RequestError(
            errno.EBADMSG, f"the bytes on the exchange disk have SHA-256 {digest}: copy them again"
        )


def _qcow2_size(source: direct.Device, request: Request) -> int:
    with direct.buffer(ALIGNMENT) as memory, memoryview(memory) as view:
        source.read(view, request.offset)
        return qcow2.size(bytes(view[: min(qcow2.HEADER_SIZE, request.length)]))


def _convert(volumes: Volumes, path: str, request: Request, target: str, progress: Progress) -> None:
    """Has qemu-img write the contents of a qcow2 image to an empty volume."""
    image = {
        "driver": "qcow2",
        "backing": None,
        "l2-cache-size": _CACHE,
        "file": {
            "driver": "raw",
            "offset": request.offset,
            "size": _rounded(request.length),
            "file": {"driver": "host_device", "filename": path, "cache": {"direct": True}},
        },
    }
    command = [
        "qemu-img", "convert", "-p", "-n", "--target-is-zero", "-m", "4", "-T", "none", "-t", "none",
        "-O", "raw", f"json:{json.dumps(image)}", target,
    ]  # fmt: skip
    # one arena for all of qemu-img's threads keeps it small
    environment = {"PATH": os.defpath, "LC_ALL": "C", "MALLOC_ARENA_MAX": "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    assert process.stdout is not None
    said = b""
    with process, process.stdout:
        try:
            while data := os.read(process.stdout.fileno(), 4096):
                said = (said + data)[-4096:]
                _require_room(volumes)
                for percent in _PERCENT.findall(data):
                    progress(int(percent))
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise CommandError(
            "qemu-img convert", process.returncode, _PERCENT.sub(b"", said).decode("ascii", "replace")
        )
