"""What can go wrong on the operator's machine, as one exception with all that a message needs."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class HostError(Exception):
    """A failure with what was wrong, where its log is and what the operator can do about it.

    `message` says what and where in one sentence, `log` is a file with the details (None: there is
    none), `detail` a few lines worth showing at once (the end of the log), `hint` the way out.
    """

    def __init__(self, message: str, *, hint: str = "", log: Path | None = None, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.log = log
        self.detail = detail

    def __str__(self) -> str:
        lines = [self.message]
        lines += [f"  | {line}" for line in self.detail.splitlines()]
        if self.log is not None:
            lines.append(f"log: {self.log}")
        if self.hint:
            lines.append(self.hint)
        return "\n".join(lines)


class NotFound(HostError):
    """A name that nothing has; the message offers the nearest one."""


class CommandError(HostError):
    """A program that failed: `argv`, `status` (exit code, negative for a signal) and its output's end."""

    def __init__(self, message: str, argv: list[str], status: int, **more: object) -> None:
        super().__init__(message, **more)  # type: ignore[arg-type]
        self.argv = argv
        self.status = status


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turn a full disk and missing rights, met while writing to `place`, into a HostError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HostError(
                f"no space left on the disk that holds {place}",
                hint="Free some space, or set XOAR_CACHE to a larger disk. What was built is kept.",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise HostError(
                f"can't write {error.filename or place}: {error.strerror}",
                hint="Check the folder's owner and rights, or set XOAR_CACHE to a folder of your own.",
            ) from error
        raise
