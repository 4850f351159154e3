"""Linux kernel modules: what each needs, and the indexes from which modprobe knows it.

A module says what it is in its section .modinfo, as "key=value" strings that end with a zero byte
(include/linux/moduleinfo.h of Linux). modules.dep and modules.alias have the format of depmod(8).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from xoar.host.errors import HostError


@dataclass(frozen=True)
class Module:
    """`needs` are the names of modules whose symbols it uses, `wanted` of those that it asks for besides
    (soft dependencies); `aliases` are patterns of what it is for."""

    path: Path
    needs: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


def plain(name: str) -> str:
    """A module's name as the kernel has it: files may be named with dashes."""
    return name.replace("-", "_")


def parse(path: Path, info: bytes) -> Module:
    """The module in a file `path` with that .modinfo section."""
    fields = [
        (key, value)
        for key, found, value in (item.partition("=") for item in info.decode().split("\0"))
        if found
    ]
    needs = [name for key, value in fields if key == "depends" for name in value.split(",") if name]
    words = [word for key, value in fields if key == "softdep" for word in value.split()]
    return Module(
        path,
        tuple(map(plain, needs)),
        tuple(plain(word) for word in words if not word.endswith(":")),
        tuple(value for key, value in fields if key == "alias"),
    )


def read(path: Path) -> Module:
    """The module in that file (not compressed)."""
    with open(path, "rb") as file:
        section = ELFFile(file).get_section_by_name(".modinfo")
        if section is None:
            raise HostError(f"{path} is no kernel module: it has no section .modinfo")
        return parse(path, section.data())


def select(names: Iterable[str], available: Mapping[str, Path]) -> dict[str, Module]:
    """These modules and all that they need, by plain name; `available` has the files by plain name.

    A soft dependency that this kernel has not is left out. Raises HostError for any other.
    """
    found: dict[str, Module] = {}
    queue = [plain(name) for name in names]
    while queue:
        name = queue.pop()
        if name in found:
            continue
        if name not in available:
            raise HostError(f"the kernel has no module {name}")
        found[name] = read(available[name])
        queue += [*found[name].needs, *(name for name in found[name].wanted if name in available)]
    return found


def order(name: str, modules: Mapping[str, Module]) -> list[Path]:
    """The files of that module and of all that it needs, each after what it needs itself."""
    found: list[Path] = []
    for need in modules[name].needs:
        found += [path for path in order(need, modules) if path not in found]
    return [*found, modules[name].path]


def dependencies(modules: Mapping[str, Module]) -> str:
    """The text of modules.dep: each module's file, and those to load before it, the last one first."""
    lines = []
    for name, module in sorted(modules.items()):
        needs = [f" {path.name}" for path in order(name, modules)[-2::-1]]
        lines.append(f"{module.path.name}:{''.join(needs)}\n")
    return "".join(lines)


def aliases(modules: Mapping[str, Module]) -> str:
    """The text of modules.alias."""
    return "".join(
        f"alias {alias} {name}\n" for name, module in sorted(modules.items()) for alias in module.aliases
    )
