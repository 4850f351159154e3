"""What can go wrong with a message, and the error numbers that `error` messages carry.

The numbers are those of Linux, which Xen's public/errno.h shares, so that `os.strerror` explains them on
the operator's machine. They are fields of this protocol, not results of hypercalls.
"""

EPERM = 1
ENOENT = 2
EIO = 5
E2BIG = 7
EAGAIN = 11
ENOMEM = 12
EBUSY = 16
EEXIST = 17
EINVAL = 22
ENOSPC = 28
ENOSYS = 38
EPROTO = 71
ETIMEDOUT = 110


class MessageError(Exception):
    """A message cannot be encoded, or what another domain sent is not a message.

    `id` is the id of the offending frame (0: unknown); `fatal` says that the end of the frame is unknown,
    so nothing that follows can be understood.
    """

    def __init__(self, text: str, id: int = 0, errno: int = EINVAL, fatal: bool = False) -> None:
        super().__init__(text)
        self.id = id
        self.errno = errno
        self.fatal = fatal
