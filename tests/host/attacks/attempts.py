"""What a domain that is nobody's parent must not be able to do, tried with raw hypercalls."""

import nano
from xoar.abi import xen as abi
from xoar.xen import control, events, grants, memory
from xoar.xen.hypercall import domctl


def create_domain():
    control.create(99, bytes(16), 1, 1, 1, 1)


def pause(victim):
    domctl("pause", abi.DOMCTL_pausedomain, abi.domctl_pausedomain, victim)


def destroy(victim):
    control.destroy(victim)


def list_domains(victim):
    if not [info for info in control.domains() if info.domid == victim]:
        raise OSError(13, "not shown")


def map_memory(victim):
    window = memory.Window(victim, None, 1)
    window.write(0x200000, b"x")


def populate(victim):
    memory.populate(victim, 0x80000, 1)


def grant_table(victim):
    memory.GrantTable(victim)


def set_param(victim):
    control.set_param(victim, abi.HVM_PARAM_STORE_EVTCHN, 1)


def set_context(victim):
    domctl(
        "c",
        abi.DOMCTL_sethvmcontext,
        abi.domctl_sethvmcontext,
        victim,
        size=16,
        buffer=nano.address(bytes(16)),
    )


def map_grant(victim):
    grants.map(victim, 1)


def bind_port(victim):
    events.bind(victim, 1)


def give_ports(victim):
    control.give_ports(victim, 0x2F8, 8)


def free_memory(victim):
    control.memory_kib()


VICTIM = (
    pause, destroy, list_domains, map_memory, populate, grant_table, set_param, set_context, map_grant,
    bind_port, give_ports, free_memory,
)  # fmt: skip


def run(victims, report):
    """Tries all; report(line) gets "<attempt> <victim> <errno, or 0 where it was allowed>"."""
    outcomes = [("create_domain", 99, create_domain)]
    for victim in victims:
        outcomes += [(attempt.__name__, victim, lambda a=attempt, v=victim: a(v)) for attempt in VICTIM]
    for name, victim, attempt in outcomes:
        try:
            attempt()
            errno = 0
        except OSError as error:
            errno = error.args[0]
        report(f"attempt {name} {victim} {errno}")
