"""Compiles a FLASK policy: text (generated from the manifests) in, Xen's binary form out."""

from __future__ import annotations

import tempfile
from pathlib import Path

from xoar.host import cache, commands

# The newest binary format that Xen 4.17 to 4.20 read (xen/xsm/flask/ss/policydb.h).
_FORMAT = 30


def compile(text: str) -> bytes:
    """The binary policy. Raises CommandError with checkpolicy's message, which names the line."""
    with tempfile.TemporaryDirectory(prefix="xoar-policy-") as folder:
        source, binary = Path(folder, "policy.conf"), Path(folder, "xenpolicy")
        source.write_text(text)
        log = cache.root() / "logs" / "policy.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")
        commands.run(
            ["checkpolicy", "-t", "Xen", "-c", str(_FORMAT), str(source), "-o", str(binary)], log=log
        )
        return binary.read_bytes()
