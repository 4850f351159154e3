"""`xoar console`: connects to a guest's console, for a person or a script."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from xoar.cli import names, script, terminal
from xoar.cli.failures import say
from xoar.host.client import Client, Stream, chunks


def interactive(host_name: str, guest_name: str) -> None:
    """Connects the terminal to a guest until Ctrl-] or the guest's end."""
    with _attached(host_name, guest_name) as (client, stream, history):
        say(f"console of {guest_name}; Ctrl-] leaves it")
        terminal.interact(client, stream, history)
        print()
        say(f"{guest_name} has ended" if stream.ended else f"left the console of {guest_name}; it runs on")


def scripted(host_name: str, guest_name: str, rules: script.Rules) -> None:
    """Sends standard input to a guest by the rules of `script`; its answers go to standard output."""
    out = sys.stdout.buffer
    last = b""

    def show(data: bytes) -> None:
        nonlocal last
        out.write(data)
        out.flush()
        last = data or last

    with _attached(host_name, guest_name) as (_, stream, history):
        try:
            lines = (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
            script.Dialogue(stream, history, rules, show).run(lines)
        finally:
            if last and not last.endswith(b"\n"):
                show(b"\n")  # behind the prompt that the output ends with


@contextmanager
def _attached(host_name: str, guest_name: str) -> Iterator[tuple[Client, Stream, bytes]]:
    """A client, the guest's console from now on, and what it showed before."""
    with Client.connect(host_name) as client:
        if client.tenant:
            with names.known_guest(client, guest_name):
                stream = client.attach(guest_name, "console")
                log = client.attach(guest_name, "log")
            yield client, stream, b"".join(chunks(log))
            return
        domid = str(names.console_domid(client, guest_name))
        # asked for at once: what the one does not show any more, the other one does
        stream = client.begin("console", domid, f"the console of {guest_name}")
        log = client.begin("log", domid, f"the log of {guest_name}")
        client.finish(stream)
        client.finish(log)
        yield client, stream, b"".join(chunks(log))
