"""XenStore's Logic as a nano domain: answers what State hands it, over the only link that it has."""

from xoar.messages.channel import Channel
from xoar.xen import boot, events
from xoar.xen.ring import xenstore_rings
from xoar.xenstore.statelink import StateLink


def main() -> None:
    """Serves for ever."""
    link = boot.uses("xenstore")
    to_state, to_logic = xenstore_rings(link.page)
    bell = events.Bell(link.port)

    def wait() -> None:
        bell.send()
        events.wait()

    state = StateLink(Channel(to_logic, to_state, bell.ring, "xenstore", "logic"), wait)
    life = boot.snapshot()
    boot.ready()
    if life <= 1:
        print("logic: ready")
    while True:
        state.serve()
