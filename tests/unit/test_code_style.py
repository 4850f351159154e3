"""The rules of docs/architecture.md and docs/style that a program can check, as tests."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src/xoar"

# Arrows point one way: what each package may import besides itself
MAY_IMPORT = {
    "abi": set(),
    "xen": {"abi"},
    "messages": {"xen"},
    "xenstore": {"abi", "xen", "messages"},
    "pci": {"abi"},
    "builder": {"abi", "xen", "messages"},
    "toolstack": {"abi", "xen", "messages", "xenstore"},
    "microreboot": {"abi", "xen", "messages"},
    "netback": {"xenstore"},
    "blkback": {"xenstore"},
    "privilege": set(),
    "shards": {
        "abi",
        "xen",
        "messages",
        "xenstore",
        "pci",
        "builder",
        "toolstack",
        "microreboot",
        "netback",
        "blkback",
    },
    "host": {"messages", "xenstore", "builder", "privilege", "xen"},
    "cli": {"host", "messages", "privilege"},
}

# Code that runs on nano, too, and all that it may import from outside xoar
PORTABLE = ("abi", "xen", "messages", "xenstore", "pci", "builder", "toolstack", "microreboot", "shards")
ON_LINUX = (
    "xenstore/linux.py",
    "xenstore/aio.py",
    "shards/netback/",
    "shards/blkback/",
)  # the exceptions: driver domains
ON_NANO = {
    "array",
    "binascii",
    "collections",
    "errno",
    "gc",
    "hashlib",
    "micropython",
    "nano",
    "struct",
    "sys",
}


def modules(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (SOURCES / package).rglob("*.py"))


def run_time_imports(path: Path) -> list[tuple[int, str]]:
    """(line, module) of all imports but those for type checkers."""
    found = []
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"), str(path))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the whole name of the module"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
        todo += ast.iter_child_nodes(node)
    return found


def run(*command: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        pytest.fail(f"{' '.join(command)}\n{result.stdout}{result.stderr}", pytrace=False)


def test_ruff_has_nothing_to_say():
    run("ruff", "check", "src", "tests")


def test_types_are_right():
    run("mypy")


def test_every_package_has_its_place_in_the_layers():
    packages = {path.name for path in SOURCES.iterdir() if (path / "__init__.py").exists()}
    assert packages == set(MAY_IMPORT)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package):
    wrong = []
    for path in modules(package):
        for line, name in run_time_imports(path):
            parts = name.split(".")
            if parts[0] != "xoar" or len(parts) < 2:
                continue
            if parts[1] == package:
                # a shard is a domain: it shares no code with another one but through packages
                if package == "shards" and parts[2] != path.relative_to(SOURCES).parts[1]:
                    wrong.append(f"{path}:{line}: {name}")
            elif parts[1] not in MAY_IMPORT[package]:
                wrong.append(f"{path}:{line}: {name}")
    assert not wrong, f"{package} may import: {', '.join(sorted(MAY_IMPORT[package])) or 'nothing'}"


def test_portable_modules_import_only_what_nano_has():
    wrong = [
        f"{path}:{line}: {name}"
        for path in modules(*PORTABLE)
        if not str(path.relative_to(SOURCES)).startswith(ON_LINUX)
        for line, name in run_time_imports(path)
        if name.split(".")[0] not in ON_NANO | {"xoar"}
    ]
    assert not wrong
