"""The shard pciback, until it is the attacker's: when all its driver domains have their devices."""

from forging import NOT_ITS, Link
from takeover import sweep, when

from xoar.shards.pciback import driver
from xoar.shards.pciback import main as shard
from xoar.xen import boot, events

_SETTLING = 8_000_000_000
_HOST_BRIDGE, _OTHER = 0x0, 0x0008  # not handed out by anybody

served = []


class Watched(driver.Driver):
    """Is known here."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        served.append(self)
        self.operations = events.now()

    def serve(self):
        if self._protocol is not None:
            self.operations = events.now() if self._transport.page.words[0] & 1 else self.operations
        super().serve()


def all_served():
    """Whether all have connected, have interrupts, and have asked for nothing for some seconds."""
    quiet = events.now() - _SETTLING
    for one in served:
        if one.phase != driver.CONNECTED or not one._device.interrupts._pirqs or one.operations > quiet:
            return False
    return bool(served)


def forge():
    """Claims devices and memory for whom they are not, and asks for what only a Toolstack may."""
    builder = Link("builder", boot.uses("builder"), "pciback")
    first, second = served
    memory = {one.name: [(window.address, window.size) for window in one._device.windows] for one in served}
    ram = [(0x100000, 0x1000)]
    for kind, fields in NOT_ITS:
        if kind not in ("claim", "fault"):
            builder.forge(kind, **fields)
    for kind in ("destroy", "unpause"):
        builder.forge(kind, domid=32)
    builder.forge("build_shard", name=first.name)
    for what, name, bdf, bars in (
        ("nobody", "none", first._bdf, memory[first.name]),
        ("ram", first.name, first._bdf, ram),
        ("device-of-another", first.name, second._bdf, memory[first.name]),
        ("memory-of-another", first.name, first._bdf, memory[second.name]),
    ):
        print(f"forged builder {what}-{name} {builder.ask('claim', driver=name, bdf=bdf, bars=bars)}")
    print("forging done")


def attack():
    sweep([one._bdf for one in served] + [_HOST_BRIDGE, _OTHER])
    forge()


def main():
    shard.Driver = Watched
    when(all_served, attack)
    shard.main()
