"""A hostile guest: does on command what no guest should be able to profit from."""

from attempts import run
from operations import Sweep
from pv_console import PvConsole, param

import nano
from xoar.abi import xen as abi
from xoar.builder.start import link_frame
from xoar.xen import events
from xoar.xen.pages import own_page
from xoar.xen.ring import xenstore_rings
from xoar.xenstore.client import Client
from xoar.xenstore.errors import Refused


def rubbish(page, words):
    """Fills a ring page with noise; `words` are the indices' places."""
    seed = nano.now()
    for i in range(0, 4096):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        page.bytes[i] = seed >> 16 & 0xFF
    for word in words:
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        page.words[word] = seed


def client():
    page, port = own_page(link_frame(abi.GNTTAB_RESERVED_XENSTORE)), param(abi.HVM_PARAM_STORE_EVTCHN)
    writer, reader = xenstore_rings(page)
    return Client(reader, writer, lambda: events.notify(port), events.wait)


def store_read(path):
    """What is there, or the error's name; and milliseconds."""
    start = nano.now()
    try:
        found = client().read(path).decode()
    except Refused as error:
        found = error.name
    return f"{found} after {(nano.now() - start) // 1000000} ms"


def store_rate(count):
    """Microseconds for so many reads and writes of a node, each once the one before is done."""
    store = client()
    store.write("data/x", "0")
    start = nano.now()
    for number in range(count):
        if number % 2:
            store.read("data/x")
        else:
            store.write("data/x", str(number))
    return (nano.now() - start) // 1000


def main():
    console = PvConsole()
    console.write("hostile guest ready")
    while True:
        command, *arguments = console.line().split()
        if command == "attempts":
            run([int(word) for word in arguments], console.write)
            console.write("attempts done")
        elif command == "sweep":
            Sweep(nano, console.write, [int(word) for word in arguments]).run()
            console.write("sweep done")
        elif command == "rubbish-xenstore":
            page = own_page(link_frame(abi.GNTTAB_RESERVED_XENSTORE))
            port = param(abi.HVM_PARAM_STORE_EVTCHN)
            for _ in range(200):
                rubbish(page, range(512, 519))
                events.notify(port)
                events.wait(nano.now() + 1000000)
            console.write("rubbish written")
        elif command == "full-xenstore":
            # well-formed requests without end, whose answers nobody reads
            page = own_page(link_frame(abi.GNTTAB_RESERVED_XENSTORE))
            port = param(abi.HVM_PARAM_STORE_EVTCHN)
            page.words[512 + 2] = page.words[512 + 3]
            for i in range(1024):
                page.bytes[i] = 0  # type 0, id 0, transaction 0, length 0: CONTROL without content
            for _ in range(2000):
                page.words[512 + 1] = (page.words[512] + 1024) & 0xFFFFFFFF
                events.notify(port)
            console.write("requests sent")
        elif command == "rubbish-console":
            console.write("no more words")
            for _ in range(200):
                rubbish(console.page, range(768, 772))
                events.notify(console.port)
                events.wait(nano.now() + 1000000)
        elif command == "flood-console":
            for _ in range(2000):
                console.outgoing.write(b"x" * 1024)
                events.notify(console.port)
            console.write("flood over")
        elif command == "store-read":
            console.write("it says " + store_read(arguments[0]))
        elif command == "store-rate":
            console.write(f"{arguments[0]} requests in {store_rate(int(arguments[0]))} us")
        elif command == "echo":
            console.write("echo " + " ".join(arguments))
        elif command == "triple-fault":
            console.write("no more code")
            for address in range(0x100000, 0x200000, 0x1000):  # where nano lies: its tables, too
                nano.memory(address, 0x1000)[:] = bytes(0x1000)
        elif command == "crash":
            console.write("crashing")
            raise RuntimeError("as asked")
        else:
            console.write("unknown command " + command)
