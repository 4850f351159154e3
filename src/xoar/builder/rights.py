"""What operators change about rights while the host runs: the paper's three calls, and the journal of them.

By default nobody has a right: `permit_hypercall` turns an optional right of a manifest on,
`assign_pci_device` gives a driver domain its device, `allow_delegation` lets a tenant's guests have devices
of a driver domain. Each can be withdrawn; each attempt is entered in the journal, refused or not.
"""

from xoar.builder.errors import BuildError
from xoar.messages.errors import EBUSY
from xoar.messages.records import function_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from xoar.builder.delegation import Delegation
    from xoar.builder.devices import Devices
    from xoar.builder.journal import Journal
    from xoar.builder.permits import Permits
    from xoar.builder.plugging import Plugging
    from xoar.messages.channel import Channel
    from xoar.messages.codec import Message

_PAGE = 32
_DEVICES_PAGE = 64
_JOURNAL_PAGE = 16


class Rights:
    """Serves the requests `on_<kind>`, which raise BuildError and OSError.

    `present(name)` gives the domid of a shard or driver domain that there is, or 0; `clock` gives ns.
    """

    def __init__(
        self,
        journal: "Journal",
        permits: "Permits",
        devices: "Devices",
        delegation: "Delegation",
        plugging: "Plugging",
        present: "Callable[[str], int]",
        clock: "Callable[[], int]",
    ) -> None:
        self._journal = journal
        self._permits = permits
        self._devices = devices
        self._delegation = delegation
        self._plugging = plugging
        self._present = present
        self._clock = clock

    def on_permits(self, client: str, channel: "Channel", message: "Message") -> None:
        rows, more = self._permits.rows(message.fields.start, _PAGE)
        channel.send("permit_list", message.id, more=int(more), permits=rows)

    def on_permit_hypercall(self, client: str, channel: "Channel", message: "Message") -> None:
        right = message.fields
        what = "%s %s.%s of %s" % (
            "permit" if right.on else "withdraw",
            right.security_class,
            right.permission,
            right.shard,
        )
        self._journal.attempt(
            client,
            what,
            lambda: self._permits.change(right.shard, right.security_class, right.permission, bool(right.on)),
        )
        channel.send("done", message.id)

    def on_journal(self, client: str, channel: "Channel", message: "Message") -> None:
        entries, more = self._journal.since(message.fields.start, _JOURNAL_PAGE)
        channel.send(
            "journal_page",
            message.id,
            more=int(more),
            dropped=self._journal.dropped,
            now_ns=self._clock(),
            entries=entries,
        )

    def on_devices(self, client: str, channel: "Channel", message: "Message") -> None:
        rows, more = self._devices.rows(message.fields.start, _DEVICES_PAGE)
        channel.send("device_list", message.id, more=int(more), devices=rows)

    def on_assign_pci_device(self, client: str, channel: "Channel", message: "Message") -> None:
        driver, bdf = message.fields.driver, message.fields.bdf
        what = "assign %s to %s" % (function_name(bdf), driver)
        self._journal.attempt(client, what, lambda: self._devices.assign(driver, bdf))
        channel.send("done", message.id)

    def on_withdraw_pci_device(self, client: str, channel: "Channel", message: "Message") -> None:
        driver = message.fields.driver

        def withdraw() -> None:
            domid = self._present(driver)
            if domid:
                raise BuildError(EBUSY, "%s is there, as domain %d" % (driver, domid))
            self._devices.withdraw(driver)

        what = "withdraw %s from %s" % (function_name(self._devices.bdf(driver)), driver)
        self._journal.attempt(client, what, withdraw)
        channel.send("done", message.id)

    def on_allow_delegation(self, client: str, channel: "Channel", message: "Message") -> None:
        driver, toolstack = message.fields

        def allow() -> None:
            self._plugging.check_driver(driver)
            self._delegation.allow(driver, toolstack)

        self._journal.attempt(client, "delegate %s to %s" % (driver, toolstack), allow)
        channel.send("done", message.id)

    def on_withdraw_delegation(self, client: str, channel: "Channel", message: "Message") -> None:
        driver, toolstack = message.fields
        self._journal.attempt(
            client,
            "withdraw %s from %s" % (driver, toolstack),
            lambda: self._delegation.withdraw(driver, toolstack),
        )
        channel.send("done", message.id)
