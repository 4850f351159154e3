"""Builds the ELF of a shard: MicroPython's core and the nano port, and the frozen modules that it imports.

Each image holds only what its main module reaches through imports: the XenStore image has no byte of the
Builder in it. The core is compiled once for all shards.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from xoar.host import cache
from xoar.host.build.micropython import MicroPython
from xoar.host.build.xen import Xen
from xoar.host.errors import HostError
from xoar.host.progress import Reporter

NANO = cache.CHECKOUT / "nano"
SOURCES = cache.CHECKOUT / "src"
FROZEN = NANO / "frozen"  # modules that stand in for MicroPython's own ones
_CORE_FILES = 150  # only the progress display depends on it
COMPILE_FLAGS = (
    "-std=gnu11", "-Os", "-DNDEBUG", "-ffreestanding", "-fno-pic", "-fno-pie", "-mno-red-zone",
    "-mgeneral-regs-only", "-mcmodel=small", "-fno-stack-protector", "-fcf-protection=none",
    "-fno-asynchronous-unwind-tables", "-D__XEN_INTERFACE_VERSION__=__XEN_LATEST_INTERFACE_VERSION__",
)  # fmt: skip


@dataclass(frozen=True)
class Core:
    """The compiled core: what every shard is linked against."""

    folder: Path
    micropython: MicroPython
    headers: Path  # Xen's, as <xen/...>

    @property
    def compiler(self) -> tuple[str, ...]:
        """gcc with the flags and folders that nano's C files are compiled with."""
        folders = (NANO, self.micropython.source, self.folder, self.headers)
        return ("gcc", *COMPILE_FLAGS, *(f"-I{folder}" for folder in folders))


@dataclass(frozen=True)
class ShardImage:
    """A shard's ELF and what it was made of."""

    name: str
    elf: Path
    c_sources: tuple[Path, ...]
    python_modules: dict[str, Path]


def core(micropython: MicroPython, xen: Xen, show: Reporter) -> Core:
    """Compiles MicroPython's core and the port. Raises HostError."""
    name = cache.key(
        "nano", micropython.digest, xen.folder.name, *sorted(NANO.glob("*.[chS]")), NANO / "Makefile"
    )

    def recipe(work: cache.Workspace) -> None:
        def on_line(line: str) -> None:
            if line.startswith(("CC ", "gcc ")):
                work.step.advance()

        settings = [
            f"MPY={micropython.source}",
            f"XEN_INCLUDE={xen.headers}",
            f"BUILD={work.result}",
            f"PYTHON={sys.executable}",
        ]
        jobs = len(os.sched_getaffinity(0))
        work.run(["make", "-C", str(NANO), "lib", f"-j{jobs}", *settings], on_line=on_line)

    folder = cache.build("nano", name, recipe, show, title="building nano", total=_CORE_FILES)
    return Core(folder, micropython, xen.headers)


def modules(main: str, also: Path | None = None) -> dict[str, Path]:
    """All modules of ours that `main` imports, directly or not, by name; itself and packages included.

    `also` is a folder that is searched first (tests have images with code of their own).
    """
    folders = [folder for folder in (also, SOURCES, FROZEN) if folder is not None]
    found: dict[str, Path] = {}
    todo = [main]
    while todo:
        name = todo.pop()
        path = _find(name, folders)
        if name in found or path is None:
            continue
        found[name] = path
        if "." in name:
            todo.append(name.rpartition(".")[0])
        todo += _imports(path)
    return dict(sorted(found.items()))


def _find(name: str, folders: list[Path]) -> Path | None:
    for base in folders:
        path = base.joinpath(*name.split("."))
        if path.is_dir():
            return path / "__init__.py"
        if path.with_suffix(".py").is_file():
            return path.with_suffix(".py")
    return None


def _imports(path: Path) -> list[str]:
    """Names that a module imports at run time; those under `if TYPE_CHECKING:` are for mypy only."""
    names: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
            names.extend(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(), str(path)))
    return names


def shard(name: str, main: str, base: Core, show: Reporter, also: Path | None = None) -> ShardImage:
    """Freezes and links the shard whose main() is in module `main`. Raises HostError."""
    used = modules(main, also)
    if main not in used:
        raise HostError(f"shard {name}: there is no module {main}")
    key = cache.key(base.folder.name, name, main, *used, *used.values(), NANO / "nano.ld")

    def recipe(work: cache.Workspace) -> None:
        starter = work.scratch / "main.py"
        starter.write_text(f"from {main} import main\n\nmain()\n")
        compiled = []
        for module, path in {**used, "main": starter}.items():
            inner = module.replace(".", "/") + ("/__init__.py" if path.name == "__init__.py" else ".py")
            out = work.scratch / (module + ".mpy")
            work.run([str(base.micropython.mpy_cross), "-O1", "-s", inner, "-o", str(out), str(path)])
            compiled.append(str(out))
        _link(work, base, compiled)
        inputs = sorted(set(re.findall(r"libmicropython\.a\((\w+)\.o\)", (work.scratch / "map").read_text())))
        info = {
            "c_sources": [str(_source(base, item)) for item in inputs] + [str(NANO / "entry.S")],
            "python_modules": {module: str(path) for module, path in used.items()},
            "size": (work.result / "elf").stat().st_size,
        }
        (work.result / "image.json").write_text(json.dumps(info, indent=1))

    folder = cache.build("shard", key, recipe, show, title=f"building shard {name}")
    info = json.loads((folder / "image.json").read_text())
    return ShardImage(name, folder / "elf", tuple(map(Path, info["c_sources"])), used)


def _link(work: cache.Workspace, base: Core, compiled: list[str]) -> None:
    freeze = base.micropython.source / "tools/mpy-tool.py"
    qstrs = base.folder / "genhdr/qstrdefs.preprocessed.h"
    # mpy-tool prints C code; the shell only redirects it
    arguments = [sys.executable, str(freeze), "-f", "-q", str(qstrs), *compiled]
    work.run(["sh", "-c", 'exec "$@" > frozen.c', "sh", *arguments])
    work.run([*base.compiler, "-c", "frozen.c", "-o", "frozen.o"])
    objects = ["frozen.o", str(base.folder / "nano/entry.o"), str(base.folder / "libmicropython.a")]
    layout = [
        "-m",
        "elf_x86_64",
        "-n",
        "--gc-sections",
        "--no-warn-rwx-segments",
        "-T",
        str(NANO / "nano.ld"),
    ]
    work.run(["ld", *layout, "-Map=map", "-o", "elf", *objects])
    work.run(["strip", "-o", str(work.result / "elf"), "elf"])


def _source(base: Core, member: str) -> Path:
    """The C file that a member of the archive was compiled from."""
    for folder in (
        NANO,
        *(base.micropython.source / name for name in ("py", "extmod", "shared/runtime", "shared/libc")),
    ):
        path = folder / f"{member}.c"
        if path.is_file():
            return path
    raise HostError(f"nano: no source is known for {member}.o")
