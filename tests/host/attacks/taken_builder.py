"""The shard builder, until it is the attacker's: then there are victims of each kind that it builds."""

from takeover import GuestRuns, sweep, when

from xoar.abi import xen as abi
from xoar.shards.builder import main as shard
from xoar.xen import control
from xoar.xen.hypercall import domctl

_KINDS = ("guest", "pciback", "netback", "blkback")
_FIRST = 40


def make():
    """Makes empty domains with these labels; the last two are PV."""
    for number, kind in enumerate(_KINDS):
        pv = number >= 2
        domctl(
            "create",
            abi.DOMCTL_createdomain,
            abi.domctl_createdomain,
            _FIRST + number,
            ssidref=control.label_to_sid(f"system_u:system_r:{kind}_t"),
            handle=bytes(16),
            flags=0 if pv else abi.XEN_DOMCTL_CDF_hvm | abi.XEN_DOMCTL_CDF_hap,
            emulation_flags=0 if pv else abi.XEN_X86_EMU_LAPIC,
            max_vcpus=1,
            max_evtchn_port=1023,
            max_grant_frames=1,
            max_maptrack_frames=1,
            grant_opts=1,
        )
        domctl("vCPUs", abi.DOMCTL_max_vcpus, abi.domctl_max_vcpus, _FIRST + number, max=1)
        control.limit_memory(_FIRST + number, 4096)


def attack():
    make()
    sweep()


def main():
    when(GuestRuns(), attack)
    shard.main()
