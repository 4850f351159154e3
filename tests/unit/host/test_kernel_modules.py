"""What Linux modules need, and the indexes for modprobe."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.host.build import modules
from xoar.host.build.modules import Module
from xoar.host.errors import HostError

NETBACK = b"alias=xen-backend:vif\0license=Dual BSD/GPL\0depends=\0retpoline=Y\0name=xen_netback\0"
CONNTRACK = b"softdep=pre: crc32c post: nf-log\0depends=libcrc32c,nf_defrag-ipv4\0\0"


def module(name: str, *needs: str, aliases: tuple[str, ...] = ()) -> Module:
    return Module(Path(f"{name}.ko"), needs, (), aliases)


TREE = {
    "nf_nat": module("nf_nat", "nf_conntrack", "libcrc32c"),
    "nf_conntrack": module("nf_conntrack", "libcrc32c", "nf_defrag"),
    "libcrc32c": module("libcrc32c", aliases=("crypto-crc32c",)),
    "nf_defrag": module("nf_defrag"),
}


def test_modinfo_says_what_a_module_needs_and_is_for() -> None:
    path = Path("a.ko")
    assert modules.parse(path, NETBACK) == Module(path, (), (), ("xen-backend:vif",))
    assert modules.parse(path, CONNTRACK) == Module(
        path, ("libcrc32c", "nf_defrag_ipv4"), ("crc32c", "nf_log"), ()
    )


@given(st.text(st.characters(codec="utf-8")))
def test_any_modinfo_gives_plain_names(text: str) -> None:
    found = modules.parse(Path("a.ko"), text.encode())
    assert not any("-" in name for name in (*found.needs, *found.wanted))


def test_a_module_is_loaded_after_all_that_it_needs() -> None:
    names = [path.stem for path in modules.order("nf_nat", TREE)]
    assert names == ["libcrc32c", "nf_defrag", "nf_conntrack", "nf_nat"]


def test_modprobe_reads_dependencies_from_the_end() -> None:
    assert modules.dependencies(TREE).splitlines() == [
        "libcrc32c.ko:",
        "nf_conntrack.ko: nf_defrag.ko libcrc32c.ko",
        "nf_defrag.ko:",
        "nf_nat.ko: nf_conntrack.ko nf_defrag.ko libcrc32c.ko",
    ]


def test_aliases_name_the_module() -> None:
    assert modules.aliases(TREE) == "alias crypto-crc32c libcrc32c\n"


def test_a_module_that_the_kernel_has_not_is_reported() -> None:
    with pytest.raises(HostError, match="no module bridge"):
        modules.select(["bridge"], {})


def test_a_file_that_is_no_module_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.ko"
    path.write_bytes(
        b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, 0, 0, 64, 0, 0, 64, 0, 0)
    )
    with pytest.raises(HostError, match=r"no section \.modinfo"):
        modules.read(path)
