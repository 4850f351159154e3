"""What a nano domain was started with: command line, links, boot modules.

Source of the layout: xen/include/public/arch-x86/hvm/start_info.h; of the words: docs/architecture.md.
"""

import struct
from collections import namedtuple

import nano
from xoar.abi import xen as abi
from xoar.xen import events
from xoar.xen.hypercall import memory_op
from xoar.xen.pages import own_page
from xoar.xen.ring import PAGE_SIZE

_MAP_ENTRIES, _MAP_ENTRY_SIZE = 128, 20  # struct e820entry: u64, u64, u32, packed

Link = namedtuple("Link", ("page", "port"))
Client = namedtuple("Client", ("link", "name", "domid", "gref", "port"))


def _start_info() -> memoryview:
    return nano.memory(nano.start_info(), abi.hvm_start_info.size)


def command_line() -> str:
    address = abi.hvm_start_info.get(_start_info(), "cmdline_paddr")
    if not address:
        return ""
    text = bytes(nano.memory(address, PAGE_SIZE))
    return text[: text.index(b"\0")].decode()


def modules() -> "list[memoryview]":
    """The boot modules, where they lie."""
    info = _start_info()
    count = abi.hvm_start_info.get(info, "nr_modules")
    entry = abi.hvm_modlist_entry
    table = nano.memory(abi.hvm_start_info.get(info, "modlist_paddr"), count * entry.size)
    return [
        nano.memory(entry.get(table, "paddr", i * entry.size), entry.get(table, "size", i * entry.size))
        for i in range(count)
    ]


def rsdp() -> int:
    """The physical address of ACPI's root pointer; 0 if there is none."""
    return abi.hvm_start_info.get(_start_info(), "rsdp_paddr")


def memory_map() -> "list[tuple[int, int, int]]":
    """(address, size, type) of each entry of the memory map that Xen gave this domain (types as in E820)."""
    buffer = bytearray(_MAP_ENTRIES * _MAP_ENTRY_SIZE)
    request = abi.memory_map.new(nr_entries=_MAP_ENTRIES, buffer=nano.address(buffer))
    memory_op("memory map", abi.XENMEM_memory_map, request)
    count = abi.memory_map.get(request, "nr_entries")
    return [struct.unpack_from("<QQI", buffer, i * _MAP_ENTRY_SIZE) for i in range(count)]


def settings(key: str) -> "list[str]":
    """The values of all words `key=value` of the command line."""
    prefix = key + "="
    return [word[len(prefix) :] for word in command_line().split() if word.startswith(prefix)]


def setting(key: str) -> "str | None":
    """The value of the word `key=value`, or None."""
    values = settings(key)
    return values[0] if values else None


def uses(server: str) -> Link:
    """The link that this shard opened to `server`."""
    for value in settings("uses"):
        name, frame, port = value.split(":")
        if name == server:
            return Link(own_page(int(frame)), int(port))
    raise ValueError("this shard was started without a link to %s" % server)


def clients() -> "list[Client]":
    """The links that shards opened to this one before it started."""
    result = []
    for value in settings("client"):
        link, name, domid, gref, port = value.split(":")
        result.append(Client(link, name, int(domid), int(gref), int(port)))
    return result


def ready() -> None:
    """Tells Bootstrapper, if there is one, that this shard serves."""
    port = setting("ready")
    if port is not None:
        local = events.bind(0, int(port))
        events.notify(local)
        events.close(local)
