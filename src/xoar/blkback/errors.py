"""What can go wrong in BlkBack."""

import errno


class BlkBackError(Exception):
    """The root of BlkBack's exceptions; the text is for the operator, one line."""


class RequestError(BlkBackError):
    """A request is refused or has failed; `number` is the errno that the reply carries."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


class AttachError(BlkBackError):
    """A volume can't be attached to a guest."""


class DiskError(BlkBackError):
    """The data disk can't be used, or not any more."""


class CommandError(RequestError):
    """A program has failed; the text is its last line of complaint."""

    def __init__(self, program: str, status: int, output: str) -> None:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        # LVM ends with advice or follow-up complaints; qemu-img has only one line
        text = lines[0] if lines else "no output"
        full = "No space left on device" in output or "insufficient free space" in output
        super().__init__(errno.ENOSPC if full else errno.EIO, f"{program} (exit code {status}): {text}")
