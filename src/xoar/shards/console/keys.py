"""Xen's debug keys that operators may press: those that print and change nothing. No I/O.

All others, such as R (reboots the machine) and C (crashes it), are refused here, since FLASK knows one
permission for all keys. Source: the register_keyhandler calls in Xen 4.17.
"""

KEYS = {
    "a": "timer queues",
    "c": "ACPI C-states",
    "d": "registers of all processors",
    "e": "event channels",
    "g": "grant tables",
    "h": "all keys",
    "i": "interrupt bindings",
    "m": "memory",
    "q": "domains",
    "r": "run queues",
    "s": "emulated time stamps",
    "t": "clocks of the processors",
    "u": "NUMA",
    "v": "control blocks of HVM vCPUs",
    "z": "IO-APIC",
    "H": "heap",
    "I": "interrupts of HVM domains",
    "M": "MSI",
    "Q": "PCI devices",
}
MOST = 16
"""Keys in one request."""


def refusal(untrusted_keys: str) -> str:
    """Why these can't be pressed, "" if they can."""
    if not 1 <= len(untrusted_keys) <= MOST:
        return "press 1 to %d keys" % MOST
    for key in untrusted_keys:
        if key not in KEYS:
            allowed = " ".join(sorted(KEYS))
            return "key '%s' does more than print, or is none; there are: %s" % (key, allowed)
    return ""
