"""The programs that NetBack uses: nft for rules, dnsmasq and udhcpc as children that are kept running."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence

from xoar.netback.errors import ProgramFailed

_NFT_TIMEOUT = 60  # seconds; it takes milliseconds, but the domain may be emulated
_RETRY = 5.0  # seconds between two starts of a child that ends by itself
_STOP_TIMEOUT = 2.0  # seconds


class Rules:
    """The nftables rules: loads a text if it is not the one loaded last."""

    def __init__(self) -> None:
        self._loaded = ""

    def load(self, text: str) -> None:
        """Replaces all rules at once; if this fails, the old ones stay. Raises ProgramFailed."""
        if text == self._loaded:
            return
        try:
            done = subprocess.run(
                ["nft", "-f", "-"],
                input=text.encode(),
                capture_output=True,
                timeout=_NFT_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ProgramFailed(f"nft: {error}") from error
        if done.returncode:
            complaint = done.stderr.decode("ascii", "replace").strip().partition("\n")[0]
            raise ProgramFailed(f"nft refuses the rules: {complaint}")
        self._loaded = text


class Child:
    """A program that runs as long as it is wanted; `listen`: its output is for `lines`, not for the log.

    Its process id is in a file: an agent that is started again ends what the one before it left behind.
    """

    def __init__(self, name: str, folder: str, listen: bool = False) -> None:
        self._name = name
        self._listen = listen
        self._pid_file = f"{folder}/{name}.pid"
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted: tuple[Sequence[str], str] | None = None
        self._started = 0.0
        self._output = b""
        self.fault = ""
        """Why it does not run though it should, "" if it does."""
        _end_leftover(self._pid_file, folder)

    def want(self, command: Sequence[str], configuration: str = "") -> None:
        """Has it run with this command line (none: not at all); it starts anew if either has changed."""
        wanted = (command, configuration)
        if wanted == self._wanted:
            return
        self.stop()
        if command:
            self._wanted = wanted
            self._start()

    def check(self) -> bool:
        """Starts it again if it has ended; whether `fault` has changed."""
        before = self.fault
        if self._process is not None and self._process.poll() is not None:
            self.fault = f"{self._name} ended with exit code {self._process.returncode}"
            self._close()
        if self._wanted and self._process is None and time.monotonic() - self._started >= _RETRY:
            self._start()
        elif self._process is not None and time.monotonic() - self._started >= _RETRY:
            self.fault = ""
        return self.fault != before

    @property
    def pid(self) -> int:
        """Its process id, 0 if it does not run."""
        return self._process.pid if self._process is not None else 0

    def hang_up(self) -> None:
        """Sends SIGHUP."""
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def fileno(self) -> int:
        """For select: readable when it has written something. -1 if there is nothing to read from."""
        return self._process.stdout.fileno() if self._process and self._process.stdout else -1

    def lines(self) -> list[str]:
        """The lines that it has written since the last call."""
        if self.fileno() >= 0:
            with contextlib.suppress(BlockingIOError):
                self._output += os.read(self.fileno(), 65536)
        *lines, self._output = self._output.split(b"\n")
        return [line.decode("ascii", "replace") for line in lines]

    def stop(self) -> None:
        """Ends it."""
        self._wanted, self.fault, self._output = None, "", b""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _start(self) -> None:
        assert self._wanted
        self._close()
        self._started = time.monotonic()
        try:
            self._process = subprocess.Popen(
                self._wanted[0],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._listen else None,
                stderr=subprocess.STDOUT if self._listen else None,
            )
            if self._listen:
                os.set_blocking(self.fileno(), False)
            with open(self._pid_file, "w") as file:
                file.write(str(self._process.pid))
        except OSError as error:
            self.fault = f"{self._name} can't be started: {error.strerror}"

    def _close(self) -> None:
        if self._process is not None and self._process.stdout:
            self._process.stdout.close()
        self._process = None


def put(path: str, text: str) -> bool:
    """Has a file with this text; whether it had another."""
    try:
        with open(path) as file:
            if file.read() == text:
                return False
    except OSError:
        pass
    with open(path, "w") as file:
        file.write(text)
    return True


def _end_leftover(pid_file: str, folder: str) -> None:
    """Ends the process whose id is in the file, if its command line names our folder: ids are used again."""
    end = time.monotonic() + _STOP_TIMEOUT
    try:
        with open(pid_file) as file:
            pid = int(file.read())
        while True:
            with open(f"/proc/{pid}/cmdline") as file:
                if folder not in file.read():
                    return
            os.kill(pid, signal.SIGTERM if time.monotonic() < end else signal.SIGKILL)
            time.sleep(0.05)
    except (OSError, ValueError):  # there is none
        pass
