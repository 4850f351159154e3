"""What can go wrong with a PCI function."""


class PciError(Exception):
    """A function can't be reached, reset or handed out; the text says why."""
