"""The library of known-good images: one blob that Bootstrapper hands to Builder as a boot module.

    u8[8]  magic "XOARLIB1"
    u32    number of images, u32 zero
    entry  one per image: digest[32], name[32], kind[8], u64 size, u64 stored size, u64 offset of the blocks

An image is stored as LZ4 blocks of 64 KiB of its bytes each: first a table of u32 lengths, then the blocks
without gaps; a block as long as what it holds is stored as it is. So an image takes about its compressed
size in memory, and is unpacked a block at a time straight before it is used.

The digest (SHA-256 of the image) is an image's name in requests. It is not computed again here: the blob
comes with Bootstrapper, from whoever is trusted to start the host.
"""

import struct

from xoar.builder.errors import EINVAL, ENOENT, BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAGIC = b"XOARLIB1"
BLOCK = 65536
HEADER = "<8sII"
ENTRY = "<32s32s8sQQQ"
SHARD, KERNEL, RAMDISK, PLAN = "shard", "kernel", "ramdisk", "plan"
LINUX, ROOTFS = "linux", "rootfs"  # of driver domains


class Image:
    """One image. `size` is that of its content, `stored` what it takes in the library, bytes."""

    def __init__(
        self,
        blob: memoryview,
        entry: "tuple[bytes, bytes, bytes, int, int, int]",
        unpack: "Callable[[memoryview, bytearray], int]",
        scratch: bytearray,
    ) -> None:
        self.digest, name, kind, self.size, self.stored, offset = entry
        self.name = name.rstrip(b"\0").decode()
        self.kind = kind.rstrip(b"\0").decode()
        self.blocks = (self.size + BLOCK - 1) // BLOCK
        self._unpack = unpack
        self._scratch = scratch
        if offset + self.stored > len(blob) or self.blocks * 4 > self.stored:
            raise BuildError(EINVAL, "image %s reaches beyond the library" % self.name)
        self._table = blob[offset : offset + self.blocks * 4]
        self._data = blob[offset + self.blocks * 4 : offset + self.stored]
        self._block = 0  # the next block and where it starts, for reading front to back
        self._position = 0

    def block(self, index: int) -> memoryview:
        """64 KiB of content (the last block: the rest). Valid until another block of any image is read."""
        if index < self._block:
            self._block = self._position = 0
        while self._block < index:
            self._position += self._length(self._block)
            self._block += 1
        stored = self._data[self._position : self._position + self._length(index)]
        length = min(BLOCK, self.size - index * BLOCK)
        if len(stored) == length:
            return stored
        if self._unpack(stored, self._scratch) != length:
            raise BuildError(EINVAL, "block %d of image %s is damaged" % (index, self.name))
        return memoryview(self._scratch)[:length]

    def read(self, offset: int, length: int) -> bytes:
        """A copy of some content; what lies beyond the image's end is left out."""
        result = b""
        end = min(offset + length, self.size)
        while offset < end:
            index, start = divmod(offset, BLOCK)
            piece = bytes(self.block(index)[start : start + end - offset])
            result += piece
            offset += len(piece)
        return result

    def _length(self, index: int) -> int:
        length: int = struct.unpack_from("<I", self._table, index * 4)[0]
        return length


class Library:
    """All images of a blob. `unpack(block, target) -> length` decodes one LZ4 block (nano.lz4)."""

    def __init__(self, blob: memoryview, unpack: "Callable[[memoryview, bytearray], int]") -> None:
        magic, count, _ = struct.unpack_from(HEADER, blob)
        if magic != MAGIC:
            raise BuildError(EINVAL, "the boot module is no image library")
        scratch = bytearray(BLOCK)
        first, size = struct.calcsize(HEADER), struct.calcsize(ENTRY)
        self.images = [
            Image(blob, struct.unpack_from(ENTRY, blob, first + i * size), unpack, scratch)
            for i in range(count)
        ]

    def find(self, digest: bytes, kind: str) -> Image:
        """The image with this SHA-256 and kind. BuildError(ENOENT) if the library has none."""
        for image in self.images:
            if image.digest == digest and image.kind == kind:
                return image
        raise BuildError(ENOENT, "the image library has no %s %s" % (kind, digest.hex()))

    def named(self, name: str, kind: str) -> Image:
        """The image with this name and kind. BuildError(ENOENT) if the library has none."""
        for image in self.images:
            if image.name == name and image.kind == kind:
                return image
        raise BuildError(ENOENT, "the image library has no %s named %s" % (kind, name))
