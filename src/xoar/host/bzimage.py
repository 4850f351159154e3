"""Takes the ELF kernel out of a Linux bzImage: Builder loads ELF, distributions ship bzImages.

Layout: Documentation/arch/x86/boot.rst of Linux (payload_offset, payload_length; protocol 2.08 and
later). The payload is the kernel proper compressed in one of several formats, known by its magic.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib

import lz4.block
import zstandard

from xoar.host.errors import HostError

_DAMAGED = (
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    lz4.block.LZ4BlockError,
    OSError,
    EOFError,
)
_LZ4_CHUNK = 8 << 20  # bytes in a block of LZ4's legacy frame format


def vmlinux(image: bytes) -> bytes:
    """The ELF kernel in `image`, without its section headers and what lies after its segments.

    Raises HostError if it isn't a bzImage or is compressed in an unknown way.
    """
    if len(image) < 0x264 or image[0x202:0x206] != b"HdrS":
        raise HostError("not a Linux bzImage: no HdrS at 0x202")
    (version,) = struct.unpack_from("<H", image, 0x206)
    if version < 0x208:
        raise HostError(f"boot protocol {version:#x} is older than 2.08: no payload field")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[(setup_sectors + 1) * 512 + offset :][:length]
    try:
        return segments_only(_decompress(payload))
    except _DAMAGED as error:
        raise HostError(f"the kernel in the bzImage can't be decompressed: {error}") from error


def _decompress(payload: bytes) -> bytes:
    # Except for gzip a u32 with the uncompressed size follows the stream; the decoders stop before it.
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(wbits=31).decompress(payload)
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
    if payload.startswith(b"\x5d\0\0"):
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(payload)
    if payload.startswith(b"BZh"):
        return bz2.BZ2Decompressor().decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(payload)
    if payload.startswith(b"\x02\x21\x4c\x18"):
        return _lz4_legacy(payload[4:-4])
    if payload.startswith(b"\x7fELF"):
        return payload
    raise HostError(
        f"the kernel in the bzImage is compressed in an unknown format (magic {payload[:4].hex()})"
    )


def _lz4_legacy(blocks: bytes) -> bytes:
    out = []
    at = 0
    while at < len(blocks):
        (size,) = struct.unpack_from("<I", blocks, at)
        out.append(lz4.block.decompress(blocks[at + 4 : at + 4 + size], uncompressed_size=_LZ4_CHUNK))
        at += 4 + size
    return b"".join(out)


def segments_only(elf: bytes) -> bytes:
    """An ELF64 file cut after its last segment: no section headers, no relocations appended to it."""
    if elf[:5] != b"\x7fELF\x02":
        raise HostError("the kernel in the bzImage is not a 64-bit ELF file")
    table, size, count = struct.unpack_from("<Q", elf, 32)[0], *struct.unpack_from("<HH", elf, 54)
    end = table + size * count
    for index in range(count):
        offset, _, _, in_file = struct.unpack_from("<QQQQ", elf, table + size * index + 8)
        end = max(end, offset + in_file)
    if end > len(elf):
        raise HostError("the kernel in the bzImage is cut short")
    header = bytearray(elf[:64])
    struct.pack_into("<Q", header, 40, 0)  # e_shoff
    struct.pack_into("<HHH", header, 58, 64, 0, 0)  # e_shentsize, e_shnum, e_shstrndx
    return bytes(header) + elf[64:end]
