"""What can go wrong in XenStore."""


class StoreError(Exception):
    """The root of XenStore's exceptions."""


class Refused(StoreError):
    """A request is refused; `name` is the error's name on the wire ("ENOENT": io/xs_wire.h, xsd_errors)."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class ProtocolError(StoreError):
    """The other end does not speak the protocol: the connection can't go on."""
