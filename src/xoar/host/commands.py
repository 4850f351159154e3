"""Run programs: output into a log file, a callback per line, one kind of error."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from xoar.host.errors import CommandError, HostError

SHOWN_LINES = 8  # of a failed program's output in the error itself

# Variables that would let the caller's shell change what a build produces.
_UNWANTED = {
    "PYTHONPATH",
    "PYTHONHOME",
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "CFLAGS",
    "LDFLAGS",
    "ARCH",
    "CROSS_COMPILE",
    "O",
    "V",
}


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a build: the caller's without what steers compilers, in the C locale."""
    clean = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
    return clean | {"LC_ALL": "C"} | dict(extra or {})


def run(
    argv: list[str],
    *,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], bool | None] | None = None,
    what: str = "",
    hint: str = "",
) -> None:
    """Run a program to its end; append its output to `log`.

    `on_line` gets each line of output (for progress); a line for which it returns True is not logged.
    `what` names the work in the error (default: the program's name). Raises CommandError with the exit
    code and the last lines of output when it fails, HostError when there is no such program. A
    KeyboardInterrupt ends the program too.
    """
    tail: list[str] = []
    with open(log, "a", encoding="utf-8", errors="replace") as sink:
        sink.write(f"$ {' '.join(argv)}\n")
        sink.flush()
        try:
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=environment(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except FileNotFoundError as error:
            raise HostError(
                f"the program {argv[0]} is not installed",
                log=log,
                hint="Start ./xoar again with an empty "
                "set-up stamp (remove packages-* from the cache), or install it with apt-get.",
            ) from error
        with process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if on_line is not None and on_line(line.rstrip("\n")):
                        continue
                    sink.write(line)
                    tail = [*tail[1 - SHOWN_LINES :], line]
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise CommandError(
                f"{what or Path(argv[0]).name} failed with exit code {process.returncode}",
                argv,
                process.returncode,
                log=log,
                detail="".join(tail),
                hint=hint,
            )
