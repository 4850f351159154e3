"""What Builder answers about domains, quotas and images. It changes nothing."""

from xoar.abi import xen as abi
from xoar.builder.library import KERNEL, RAMDISK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from xoar.builder.domains import Domains
    from xoar.builder.interface import Machine
    from xoar.builder.library import Library
    from xoar.builder.plan import Quota
    from xoar.messages.channel import Channel
    from xoar.messages.codec import Message

_PAGE = 32
_DOMAINS_PAGE = 24
_NO_LIMIT_KIB = 0xFFFFFFFF  # what a domain without a limit (domain 0) is reported with


class Reports:
    """Serves the requests `on_<kind>`, which raise OSError.

    `quotas` are those of tenants' Toolstacks, by name: such a Toolstack hears of its own guests and its own
    share only. `had_by(name)` is what the guests of a Toolstack have together.
    """

    def __init__(
        self,
        machine: "Machine",
        library: "Library",
        domains: "Domains",
        quotas: "dict[str, Quota]",
        had_by: "Callable[[str], Quota]",
    ) -> None:
        self._machine = machine
        self._library = library
        self._domains = domains
        self._quotas = quotas
        self._had_by = had_by

    def on_domains(self, client: str, channel: "Channel", message: "Message") -> None:
        total, free = self._memory_for(client)
        infos = [info for info in self._machine.domains() if info.domid >= message.fields.start]
        if client in self._quotas:
            infos = [info for info in infos if self._domains.is_seen_by(client, info.domid)]
        rows = []
        for info in infos[:_DOMAINS_PAGE]:
            record = self._domains.records.get(info.domid)
            rows.append(
                (
                    info.domid,
                    state_of(info),
                    reason_of(info),
                    info.pages * 4,
                    min(info.max_pages * 4, _NO_LIMIT_KIB),
                    info.vcpus,
                    info.cpu_time,
                    record.created if record else 0,
                    record.name if record else "",
                    record.parent or "" if record else "",
                    self._machine.label(info.sid),
                )
            )
        channel.send(
            "domain_list",
            message.id,
            total_kib=total,
            free_kib=free,
            now_ns=self._machine.now(),
            xen_version=self._machine.version(),
            more=1 if len(infos) > _DOMAINS_PAGE else 0,
            domains=rows,
        )

    def on_quotas(self, client: str, channel: "Channel", message: "Message") -> None:
        start = message.fields.start
        rows = []
        for name, quota in list(self._quotas.items())[start : start + _PAGE]:
            has = self._had_by(name)
            rows.append(
                (
                    name,
                    has.guests,
                    has.memory_kib,
                    has.vcpus,
                    has.devices,
                    quota.guests,
                    quota.memory_kib,
                    quota.vcpus,
                    quota.devices,
                )
            )
        more = 1 if len(self._quotas) > start + _PAGE else 0
        channel.send("quota_list", message.id, more=more, quotas=rows)

    def on_images(self, client: str, channel: "Channel", message: "Message") -> None:
        start = message.fields.start
        images = [image for image in self._library.images if image.kind in (KERNEL, RAMDISK)][start:]
        rows = [(image.digest, image.name, image.kind, image.size, image.stored) for image in images[:_PAGE]]
        channel.send("library", message.id, more=1 if len(images) > _PAGE else 0, images=rows)

    def _memory_for(self, client: str) -> "tuple[int, int]":
        """KiB in all, and free: the host's, or a tenant's share of it."""
        quota = self._quotas.get(client)
        if quota is None:
            return self._machine.memory_kib()
        total: int = quota.memory_kib
        return total, total - self._had_by(client).memory_kib


_REASONS = {
    abi.SHUTDOWN_poweroff: "poweroff",
    abi.SHUTDOWN_reboot: "reboot",
    abi.SHUTDOWN_suspend: "suspend",
    abi.SHUTDOWN_crash: "crash",
    abi.SHUTDOWN_watchdog: "watchdog",
    abi.SHUTDOWN_soft_reset: "soft_reset",
}


def reason_of(info: "Any") -> str:
    """The schema's word for why a domain ended."""
    # a guest may give any number as its reason
    return "none" if info.reason is None else _REASONS.get(info.reason, "crash")


def state_of(info: "Any") -> str:
    """The schema's word for what a domain does."""
    if info.flags & abi.XEN_DOMINF_dying:
        return "dying"
    if info.reason is not None:
        return "crashed" if reason_of(info) == "crash" else "shutdown"
    if info.flags & abi.XEN_DOMINF_paused:
        return "paused"
    return "blocked" if info.flags & abi.XEN_DOMINF_blocked else "running"
