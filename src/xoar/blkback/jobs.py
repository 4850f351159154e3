"""Requests that are done by a thread, so that an import holds nobody up."""

import errno
import threading
import traceback
from collections.abc import Callable

from xoar.blkback import transfer
from xoar.blkback.desks import Desk, line, refusal
from xoar.blkback.errors import BlkBackError, RequestError
from xoar.blkback.requests import Request
from xoar.blkback.volumes import Volumes


def perform(volumes: Volumes, request: Request, progress: transfer.Progress) -> str:
    """Does a request; the words of the reply. Raises RequestError, DiskError, OSError."""
    if request.action == "create":
        volumes.create(request.name, request.size)
    elif request.action == "clone":
        volumes.clone(request.source, request.name)
    elif request.action == "grow":
        volumes.grow(request.name, request.size)
    elif request.action == "delete":
        volumes.delete(request.name)
    elif request.action == "import":
        transfer.import_image(volumes, request, progress)
    else:
        return transfer.export_image(volumes, request, progress)
    return ""


class Job:
    """A request of a desk. `answer` is empty until it is done; then `wake` is called."""

    def __init__(
        self, desk: Desk, number: str, request: Request, volumes: Volumes, wake: Callable[[], object]
    ) -> None:
        self.desk = desk
        self.number = number
        self.request = request
        self.percent = 0
        self.answer = ""
        self._volumes = volumes
        self._wake = wake
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            answer = f"ok {perform(self._volumes, self.request, self._progress)}".rstrip()
        except Exception as error:
            answer = _failure(error)
        self.answer = answer
        self._wake()

    def _progress(self, percent: int) -> None:
        self.percent = percent


def _failure(error: Exception) -> str:
    if isinstance(error, RequestError):
        return refusal(error)
    number, text = errno.EIO, str(error)
    if isinstance(error, OSError):
        number, text = error.errno or number, error.strerror or text
    elif not isinstance(error, BlkBackError):
        traceback.print_exception(error)
    return f"error {number} {line(text)}"
