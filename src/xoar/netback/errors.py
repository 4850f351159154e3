"""What can go wrong in NetBack."""


class NetBackError(Exception):
    """The root of NetBack's exceptions; the text is for the operator."""


class Malformed(NetBackError):
    """Something declared in XenStore makes no sense, or is not its author's to declare."""


class ProgramFailed(NetBackError):
    """A program that NetBack needs did not do its work."""
