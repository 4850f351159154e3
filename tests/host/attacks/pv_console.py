"""A guest's own console ring, for nano images that run as guests (they may not write to Xen's console)."""

import nano
from xoar.abi import xen as abi
from xoar.builder.start import link_frame
from xoar.xen import events, hypercall
from xoar.xen.pages import own_page
from xoar.xen.ring import console_rings


def param(index):
    request = abi.hvm_param.new(domid=abi.DOMID_SELF, index=index)
    hypercall.call("get a parameter", abi.HYPERVISOR_hvm_op, abi.HVMOP_get_param, request)
    return abi.hvm_param.get(request, "value")


class PvConsole:
    def __init__(self):
        self.page = own_page(link_frame(abi.GNTTAB_RESERVED_CONSOLE))
        self.incoming, self.outgoing = console_rings(self.page)
        self.port = param(abi.HVM_PARAM_CONSOLE_EVTCHN)
        self.buffer = b""

    def write(self, text):
        data = (text + "\r\n").encode()
        while data:
            data = data[self.outgoing.write(data) :]
            events.notify(self.port)
            if data:
                events.wait(nano.now() + 10000000)

    def line(self):
        """The next line that the operator sent."""
        while b"\n" not in self.buffer:
            self.buffer += self.incoming.read(1024).replace(b"\r", b"\n")
            events.notify(self.port)
            if b"\n" not in self.buffer:
                events.wait(nano.now() + 100000000)
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode()
