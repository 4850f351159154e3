"""PCI functions and what a driver domain may do with one: configuration space, capabilities, BARs, resets,
message interrupts, and the protocol of pcifront (xen/include/public/io/pciif.h).

Nothing here waits: what takes time is a generator that yields the milliseconds to let pass.
"""
