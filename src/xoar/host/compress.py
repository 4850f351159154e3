"""LZ4 block compression of images, for xoar.builder.library: slow here, fast to unpack in Builder."""

from __future__ import annotations

import lz4.block


def compress_blocks(data: bytes, block: int = 65536) -> list[bytes]:
    """Blocks of `block` bytes each, compressed; one that would not get smaller stays as it is."""
    blocks = []
    for start in range(0, len(data), block):
        content = data[start : start + block]
        packed: bytes = lz4.block.compress(content, mode="high_compression", compression=12, store_size=False)
        blocks.append(packed if len(packed) < len(content) else content)
    return blocks
