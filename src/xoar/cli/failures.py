"""From errors to messages and exit codes. The codes are an interface: docs/operators.md lists them."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from xoar.host.errors import HostError, NotFound
from xoar.privilege.errors import ManifestError, PrivilegeError

OK = 0
ERROR = 1
USAGE = 2  # click's own for wrong options, too; also a bad xoar.toml or manifest
NOT_FOUND = 3
NOT_RUNNING = 4
TIMEOUT = 5
INTERRUPTED = 130


def exit_code(error: HostError) -> int:
    """The exit code that tells a script what kind of failure this is."""
    # imported late: most commands fail in none of these ways
    from xoar.host import client, config

    if isinstance(error, client.NotRunning):
        return NOT_RUNNING
    if isinstance(error, config.ConfigError):
        return USAGE
    if isinstance(error, NotFound):
        return NOT_FOUND
    if isinstance(error, client.RequestRefused) and error.absent:
        return NOT_FOUND
    return TIMEOUT if client.is_timeout(error) else ERROR


def say(text: str) -> None:
    """A message for the operator, on standard error; further lines are set in."""
    first, *more = text.splitlines() or [""]
    print(f"xoar: {first}", *(f"      {line}" for line in more), sep="\n", file=sys.stderr)


class Group(TyperGroup):
    """Ends commands that fail with a message and the exit code, never with a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except HostError as error:
            say(str(error))
            code = exit_code(error)
        except PrivilegeError as error:
            say(str(error))
            code = USAGE if isinstance(error, ManifestError) else ERROR
        except BrokenPipeError:
            # whoever read the output has seen enough; what is left must not fail again when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = ERROR
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            say(f"{place}{error.strerror or error}")
            code = ERROR
        except KeyboardInterrupt:
            say("interrupted")
            code = INTERRUPTED
        raise typer.Exit(code)
