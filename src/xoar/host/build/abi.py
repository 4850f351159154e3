"""Generates `xoar.abi.xen`, Xen's numbers and layouts, from the headers of the Xen that was built.

`hypervisor/abi.c` includes the public headers and, when run, prints a Python module: the compiler
itself supplies every offset, size and constant.
"""

from __future__ import annotations

import os
from pathlib import Path

from xoar.host import cache
from xoar.host.build.xen import HYPERVISOR, Xen
from xoar.host.progress import Reporter

MODULE = cache.CHECKOUT / "src/xoar/abi/xen.py"


def generate(xen: Xen, show: Reporter) -> Path:
    """Bring the module in the source tree up to date with `xen`; its path. Raises HostError."""
    program = HYPERVISOR / "abi.c"

    def recipe(work: cache.Workspace) -> None:
        # the public headers show the toolstack's interfaces only to code that says it is one
        work.run(
            ["gcc", "-Wall", "-Werror", "-D__XEN_TOOLS__", "-I", str(xen.headers), str(program), "-o", "abi"]
        )
        lines: list[str] = []
        work.run(["./abi"], on_line=lines.append)
        (work.result / "xen.py").write_text("\n".join(lines) + "\n")

    name = cache.key("abi", xen.folder.name, program)
    made = cache.build("abi", name, recipe, show, title="reading Xen's ABI from its headers") / "xen.py"
    text = made.read_text()
    if not MODULE.is_file() or MODULE.read_text() != text:
        new = MODULE.with_suffix(f".new{os.getpid()}")
        new.write_text(text)
        new.replace(MODULE)
    return MODULE
