"""A nano guest that reads and writes a node without pause, and says on its console when it does: what
`xoar bench xenstore` measures with, in a host of either kind.
"""

import nano
from xoar.abi import xen as abi
from xoar.xen import events, hypercall
from xoar.xen.pages import own_page
from xoar.xen.ring import console_rings, xenstore_rings
from xoar.xenstore.client import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.xen.ring import ByteRing

REQUESTS = 400  # of a round; each once the one before is answered
_REST = 2_000_000_000  # ns before each round
_NODE = "data/x"  # below the guest's home


def _parameter(index: int) -> int:
    request = abi.hvm_param.new(domid=abi.DOMID_SELF, index=index)
    hypercall.call("get a parameter", abi.HYPERVISOR_hvm_op, abi.HVMOP_get_param, request)
    value: int = abi.hvm_param.get(request, "value")
    return value


def _say(outgoing: "ByteRing", port: int, text: str) -> None:
    outgoing.write(text.encode())
    events.notify(port)


def main() -> None:
    """Rounds of requests, for ever."""
    _, outgoing = console_rings(own_page(_parameter(abi.HVM_PARAM_CONSOLE_PFN)))
    console = _parameter(abi.HVM_PARAM_CONSOLE_EVTCHN)
    to_server, to_client = xenstore_rings(own_page(_parameter(abi.HVM_PARAM_STORE_PFN)))
    port = _parameter(abi.HVM_PARAM_STORE_EVTCHN)
    store = Client(to_client, to_server, lambda: events.notify(port), events.wait)
    number = 0
    while True:
        number += 1
        due = nano.now() + _REST
        while nano.now() < due:
            events.wait(due)
        _say(outgoing, console, "rate: round %d\r\n" % number)
        for request in range(REQUESTS // 2):
            store.write(_NODE, str(request))
            if store.read(_NODE) != str(request).encode():
                _say(outgoing, console, "rate: wrong\r\n")
                return
        _say(outgoing, console, "rate: done %d\r\n" % number)
