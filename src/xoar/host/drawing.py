"""The model of sharing as a picture: text for Graphviz, which makes an SVG of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from xoar.host.errors import HostError
from xoar.host.sharing import Sharing

_PROGRAM = "dot"
_COLOURS = 9  # that the scheme pastel19 has


def dot(host: str, sharing: Sharing) -> str:
    """A graph in Graphviz's language: guests coloured by group, and the driver domains that they use."""
    groups = sorted({guest.group for guest in sharing.guests if guest.group})
    lines = [
        "graph sharing {",
        f"  graph [label={_quoted(f'host {host}')}, labelloc=t, rankdir=LR, ranksep=1.5, fontname=Helvetica]",
        "  node [fontname=Helvetica, colorscheme=pastel19, style=filled, fillcolor=white]",
        "  edge [fontname=Helvetica, fontsize=10]",
        '  subgraph cluster_once { label="one each for all guests"; style=dashed',
    ]
    lines += [
        f"    {_shard(shard.name)} [label={_quoted(shard.name)}]"
        for shard in sharing.shards
        if not shard.is_driver
    ]
    lines.append("  }")
    for guest in sharing.guests:
        colour = groups.index(guest.group) % _COLOURS + 1 if guest.group else "white"
        label = _quoted(f"{guest.name}\\ngroup {guest.group}" if guest.group else guest.name)
        lines.append(f"  {_guest(guest.name)} [shape=box, fillcolor={colour}, label={label}]")
    for shard in sharing.shards:
        if shard.is_driver:
            label = _quoted(f"{shard.name}\\n{shard.kind}")
            lines.append(f"  {_shard(shard.name)} [label={label}]")
            for name, used in shard.uses.items():
                label = _quoted(", ".join(used))
                lines.append(f"  {_guest(name)} -- {_shard(shard.name)} [label={label}]")
    return "\n".join([*lines, "}", ""])


def svg(graph: str, file: Path) -> None:
    """Writes a graph in Graphviz's language into a file as SVG. Raises HostError, OSError."""
    try:
        made = subprocess.run([_PROGRAM, "-Tsvg"], input=graph.encode(), capture_output=True, check=False)
    except FileNotFoundError as error:
        raise HostError(
            f"the program {_PROGRAM} is not installed",
            hint="apt-get install graphviz; or take what --dot prints to where it is: dot -Tsvg",
        ) from error
    if made.returncode != 0:
        raise HostError(
            f"{_PROGRAM} failed with exit code {made.returncode}", detail=made.stderr.decode(errors="replace")
        )
    file.write_bytes(made.stdout)


def _shard(name: str) -> str:
    return _quoted(f"shard {name}")


def _guest(name: str) -> str:
    return _quoted(f"guest {name}")


def _quoted(text: str) -> str:
    """A text for Graphviz; "\\n" in it is a new line. Names have none of the characters that need more."""
    return f'"{text}"'
