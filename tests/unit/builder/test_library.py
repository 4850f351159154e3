"""The image library: what xoar.host.bundle packs, xoar.builder.library unpacks."""

from __future__ import annotations

import lz4.block
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.builder.errors import BuildError
from xoar.builder.library import BLOCK, KERNEL, RAMDISK, Library
from xoar.host import bundle, compress


def unpack(block: memoryview, target: bytearray) -> int:
    try:
        data = lz4.block.decompress(bytes(block), uncompressed_size=len(target))
    except lz4.block.LZ4BlockError as error:
        raise ValueError("damaged LZ4 block") from error
    target[: len(data)] = data
    return len(data)


def library(*entries: bundle.Entry) -> Library:
    packed = bundle.pack(entries, lambda entry: compress.compress_blocks(entry.content))
    return Library(memoryview(packed), unpack)


# runs of one byte (they compress) and random bytes (they don't), across block borders
CONTENT = st.lists(
    st.one_of(
        st.builds(lambda byte, count: bytes([byte]) * count, st.integers(0, 255), st.integers(0, 3 * BLOCK)),
        st.binary(max_size=200),
    ),
    max_size=4,
).map(b"".join)


@given(CONTENT, st.integers(0, 1 << 20), st.integers(0, 1 << 18))
def test_any_part_of_an_image_reads_as_packed(content: bytes, offset: int, length: int) -> None:
    image = library(bundle.Entry("x", KERNEL, content)).named("x", KERNEL)
    assert image.size == len(content)
    assert image.read(offset, length) == content[offset : offset + length]


@given(st.lists(CONTENT, max_size=3), st.randoms())
def test_blocks_of_several_images_read_in_any_order(contents: list[bytes], random: object) -> None:
    images = library(*(bundle.Entry(str(i), RAMDISK, content) for i, content in enumerate(contents))).images
    wanted = [(i, block) for i, image in enumerate(images) for block in range(image.blocks)]
    random.shuffle(wanted)  # type: ignore[attr-defined]
    for i, block in wanted:
        assert bytes(images[i].block(block)) == contents[i][block * BLOCK : (block + 1) * BLOCK]


def test_an_image_is_found_by_hash_and_kind_only() -> None:
    entry = bundle.Entry("debian", KERNEL, b"content")
    known = library(entry)
    assert known.find(entry.digest, KERNEL).name == "debian"
    with pytest.raises(BuildError, match="no ramdisk"):
        known.find(entry.digest, RAMDISK)
    with pytest.raises(BuildError, match="no kernel"):
        known.find(bytes(32), KERNEL)


def test_a_library_stores_what_compresses_in_less_than_its_size() -> None:
    image = library(bundle.Entry("zeros", KERNEL, bytes(10 * BLOCK))).named("zeros", KERNEL)
    assert image.stored < BLOCK


def test_content_with_two_names_is_stored_once() -> None:
    content = bytes(range(256)) * 300
    two = library(bundle.Entry("a", KERNEL, content), bundle.Entry("b", KERNEL, content))
    assert two.named("a", KERNEL).read(0, 1 << 20) == two.named("b", KERNEL).read(0, 1 << 20) == content
    packed = [
        bundle.pack(
            [bundle.Entry(name, KERNEL, content) for name in names],
            lambda e: [e.content[:65536], e.content[65536:]],
        )
        for names in ("a", "ab")
    ]
    assert len(packed[1]) - len(packed[0]) < 1000


def test_an_entry_that_reaches_beyond_the_blob_is_refused() -> None:
    packed = bundle.pack(
        [bundle.Entry("x", KERNEL, bytes(100))], lambda e: compress.compress_blocks(e.content)
    )
    with pytest.raises(BuildError, match="beyond"):
        Library(memoryview(packed[:-1]), unpack)


def test_something_else_is_no_library() -> None:
    with pytest.raises(BuildError, match="no image library"):
        Library(memoryview(bytes(64)), unpack)
