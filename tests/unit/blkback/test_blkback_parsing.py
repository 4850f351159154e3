"""What BlkBack reads: requests, LVM's reports, the device mapper's status, images, names."""

import errno
import itertools
import json
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xoar.blkback import dm, names, qcow2, requests, transfer
from xoar.blkback.errors import BlkBackError, RequestError
from xoar.blkback.layout import EXTENT, layout
from xoar.blkback.lvm import rows

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,63}", fullmatch=True)
SIZES = st.integers(1, requests.SIZE_MAX)
OFFSETS = st.integers(256, 1 << 40).map(lambda pages: pages * 4096)
LENGTHS = st.integers(1, 1 << 60)
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
# what lvm(8) says that a logical volume can't be called, or a name can't have in it
RESERVED = [
    "_cdata",
    "_cmeta",
    "_corig",
    "_cpool",
    "_cvol",
    "_mimage",
    "_mlog",
    "_pmspare",
    "_rimage",
    "_rmeta",
    "_tdata",
    "_tmeta",
    "_vorigin",
]


@given(NAMES, SIZES)
def test_create_and_grow_have_name_and_size(name, size):
    for action in ("create", "grow"):
        assert requests.parse(f"{action} {name} {size}") == requests.Request(action, name, size=size)


@given(NAMES, NAMES)
def test_clone_names_source_first(source, name):
    assert requests.parse(f"clone {source} {name}") == requests.Request("clone", name, source)


@given(NAMES, st.sampled_from(["raw", "qcow2"]), OFFSETS, LENGTHS, SIZES, DIGESTS)
def test_import_has_all_its_words(name, kind, offset, length, size, digest):
    line = f"import {name} {kind} {offset} {length} {size} {digest}"
    assert requests.parse(line) == requests.Request("import", name, "", size, kind, offset, length, digest)


@given(st.lists(NAMES | st.text() | st.integers(-9, 1 << 70).map(str)).map(" ".join) | st.text())
@example("create a -1")
@example("create a 1_0")
@example("create ../a 1")
@example("create a ²")
@example("delete  a")
@example("export a 1048577 5")
@example("export a 0 5")
@example("import a vmdk 1048576 1 1 " + "0" * 64)
@example("import a raw 1048576 1 1 " + "g" * 64)
def test_any_line_is_a_request_or_invalid(line):
    try:
        requests.parse(line)
    except RequestError as error:
        assert error.number == errno.EINVAL


@given(NAMES)
@example("snapshot1")
@example("pvmove0")
@example("a_tmeta")
def test_a_volume_has_a_logical_volume_that_lvm_allows(name):
    lv = names.to_lv(name)
    assert names.from_lv(lv) == name
    assert not lv.startswith(("-", "snapshot", "pvmove"))
    assert not any(part in lv for part in RESERVED)


@given(st.text())
@example("pool")
@example("v.")
@example("v.A")
def test_only_names_of_volumes_come_from_logical_volumes(lv):
    name = names.from_lv(lv)
    assert name is None or names.check(name) == name


@given(st.lists(st.dictionaries(st.text(), st.text())), st.sampled_from(["lvs", "vgs", "pvs"]))
def test_a_report_gives_its_rows(table, command):
    assert rows(json.dumps({"report": [{command[:-1]: table}]}), command) == table


@given(
    st.text()
    | st.recursive(st.none() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
        json.dumps
    )
)
@example('{"report": [{"lv": [1]}]}')
@example('{"report": [{"lv": null}]}')
@example("[" * 100000)
def test_what_is_no_report_is_refused(text):
    try:
        rows(text, "lvs")
    except BlkBackError as error:
        assert "lvs" in str(error)


def test_status_of_the_device_mapper_is_decoded():
    reply = bytearray(4096)
    struct.pack_into("=3I4IiIII", reply, 0, 4, 47, 0, 4096, 312, 1, 2, 0, 0, 0, 0)
    struct.pack_into("=3IIIIiIIIQ", reply, 0, 4, 47, 0, 4096, 312, 1, 2, 0, 0, 0, 254 << 8 | 5)
    text = b"2 213/2048 5/2752 - rw discard_passdown error_if_no_space - 512 "
    reply[352 : 352 + len(text)] = text
    status = dm.decode(bytes(reply))
    assert status == dm.Status(254, 5, 2, text.decode())
    assert dm.pool_use(status.text) == dm.PoolUse(213, 2048, 5, 2752)


@given(st.text())
@example("Fail")
@example("Error")
@example("- -")
@example("1 2/3 4")
def test_a_status_that_says_nothing_is_no_use(text):
    assert dm.pool_use("x" + text.replace("/", "")) is None
    assert dm.thin_used("x" + text) is None


def test_a_volume_takes_what_is_mapped():
    assert dm.thin_used("10240 20479") == 5120
    assert dm.thin_used("0 -") == 0


@given(st.integers(0, (100 << 40) // EXTENT))
def test_the_pool_fits_its_disk_and_its_metadata_the_pool(free):
    plan = layout(free)
    if plan is None:
        assert free < 10
        return
    chunks = plan.extents * EXTENT // plan.chunk
    assert plan.extents + 3 * plan.metadata // EXTENT <= free
    assert plan.chunk >= 64 << 10 and plan.chunk & (plan.chunk - 1) == 0 and chunks <= 2 << 20
    assert plan.metadata >= chunks * 64 and plan.metadata % EXTENT == 0
    assert plan.extents >= free * 0.95 - 8


def header(version=3, backing=0, size=1 << 30, encryption=0, features=0):
    start = struct.pack(">4sIQIIQI", b"QFI\xfb", version, backing, 0, 16, size, encryption)
    return start.ljust(72, b"\0") + struct.pack(">Q", features).ljust(40, b"\0")


@given(st.integers(0, (1 << 64) - 1), st.sampled_from([0, 1, 8, 16, 25]))
def test_a_whole_image_has_its_size(size, features):
    assert qcow2.size(header(size=size, features=features)) == size
    assert qcow2.size(header(2, size=size)) == size


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        header()[:111],
        b"QFI\xfa" + header()[4:],
        header(1),
        header(4),
        header(backing=0x200),
        header(2, backing=1),
        header(encryption=1),
        header(features=2),
        header(features=4),
        header(features=1 << 63),
    ],
)
def test_an_image_that_is_not_whole_is_refused(bad):
    with pytest.raises(RequestError) as caught:
        qcow2.size(bad)
    assert caught.value.number == errno.EINVAL


@given(st.binary(max_size=200))
def test_any_header_has_a_size_or_is_refused(data):
    try:
        assert 0 <= qcow2.size(data) < 1 << 64
    except RequestError as error:
        assert error.number == errno.EINVAL


@given(
    st.lists(st.sampled_from([bytes(65536), b"\1".ljust(65536, b"\0"), bytes(65535) + b"\1"]), max_size=16)
)
def test_runs_are_all_that_is_not_zero(blocks):
    data = b"".join(blocks)
    found = list(transfer.runs(data))
    copy = bytearray(len(data))
    for start, end in found:
        copy[start:end] = data[start:end]
        assert start % 65536 == end % 65536 == 0 and all(
            any(data[at : at + 65536]) for at in range(start, end, 65536)
        )
    assert bytes(copy) == data
    assert all(before[1] < after[0] for before, after in itertools.pairwise(found))
