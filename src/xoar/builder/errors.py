"""What can be wrong with a build; the text goes to whoever asked for it."""


class BuildError(Exception):
    """A domain can't be built; `errno` as in Xen's errno.h."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(text)
        self.errno = errno


ENOENT = 2
ENOMEM = 12
ENODEV = 19
EINVAL = 22
