"""The operator's way into guests over SSH: a key of their own, and the command line of ssh."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from xoar.host import ssh_socket, state
from xoar.host.errors import CommandError, HostError, disk_errors

_FOLDER = ".ssh"  # beside the hosts' folders; no host can have this name
_KEY = "id_ed25519"


def identity() -> Path:
    """The operator's private key, made at first use; the public one stands beside it, `.pub`."""
    key = state.root() / _FOLDER / _KEY
    if not key.is_file():
        with disk_errors(key):
            key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            argv = [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "xoar", "-f", str(key)]
            done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise CommandError("no SSH key could be made", argv, done.returncode, detail=done.stderr)
    return key


def public_key() -> str:
    """The operator's public key, one line."""
    return identity().with_suffix(".pub").read_text().strip()


def known_hosts(host: state.Host, guest: str) -> Path:
    """The file that remembers a guest's own key. It lies with the disks, since the key is on one of them."""
    return host.folder / state.DISKS / "known_hosts" / guest


def forget(host: state.Host, guest: str) -> None:
    """The guest gets a new disk, or is a new one to cloud-init: it will have another key."""
    known_hosts(host, guest).unlink(missing_ok=True)


def command(host: state.Host, guest: str, user: str, port: int, words: list[str]) -> list[str]:
    """The command line of ssh for a guest that a port of this machine leads to."""
    known = known_hosts(host, guest)
    with disk_errors(known):
        known.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    options = (
        f"HostKeyAlias={guest}",  # the port changes
        f'UserKnownHostsFile="{known}"',
        "StrictHostKeyChecking=accept-new",
        "IdentitiesOnly=yes",
        "LogLevel=ERROR",
        f"ProxyCommand={shlex.quote(sys.executable)} -P -m {ssh_socket.__name__} %p",
        "ProxyUseFdpass=yes",
    )
    return [
        program("ssh"), "-F", "none", "-i", str(identity()), "-p", str(port),
        *(word for option in options for word in ("-o", option)),
        f"{user}@127.0.0.1", *words,
    ]  # fmt: skip


def program(name: str) -> str:
    """The path of one of OpenSSH's programs. Raises HostError."""
    path = shutil.which(name)
    if path is None:
        raise HostError(f"the program {name} is not installed", hint="Install openssh-client.")
    return path
