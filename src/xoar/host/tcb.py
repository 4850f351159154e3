"""How much code the most privileged shards consist of: `xoar tcb`.

Counts the source files that are linked into an image: C and assembly (MicroPython's core and the nano port)
and the frozen Python modules. A line counts when it is compiled and holds code: no blank lines, comments,
docstrings, and nothing that the preprocessor leaves out under our settings. Headers are not counted;
C files that another one includes are, as part of it.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from xoar.host.build.nano import NANO, ShardImage
from xoar.host.errors import HostError
from xoar.privilege.bootplan import memory_kib
from xoar.privilege.shardset import ShardSet

PAPER_LINES = 13_500
"""Lines of the Builder's source in the paper "Breaking Up is Hard to Do" (SOSP 2011)."""

PRIVILEGED = ("bootstrapper", "builder")
"""The shards with rights over other domains: their code is what has to be trusted."""

_LINE_MARKER = re.compile(r'# (\d+) "((?:\\.|[^"\\])*)"')
# A comment or, so that comment signs in it mean nothing, a string or a character
_C_TOKENS = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_PYTHON_LAYOUT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENCODING, tokenize.ENDMARKER,
}  # fmt: skip


@dataclass(frozen=True)
class Image:
    """Figures of one shard's image: lines of code, bytes, KiB."""

    name: str
    python_lines: int
    nano_lines: int  # C and assembly of our port
    micropython_lines: int  # C of MicroPython itself
    total_lines: int
    image_bytes: int
    memory_kib: int  # with the image library in the shard that receives it


@dataclass(frozen=True)
class Report:
    """Figures of all images; the two totals count a file once even if several images contain it."""

    images: tuple[Image, ...]
    privileged_lines: int  # Bootstrapper and Builder together
    paper_lines: int
    memory_kib: int  # of all shards that live on after boot, without driver domains

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)


def report(
    images: Iterable[ShardImage], shards: ShardSet, compiler: Sequence[str], library_kib: int
) -> Report:
    """Counts images; `shards` are the manifests, which state their memory.

    `library_kib` is the size of the image library. `compiler` is the command, with all settings and folders,
    that compiles the C files. Raises HostError when it fails.
    """
    images = tuple(images)

    @cache
    def lines(path: Path) -> int:
        if path.suffix == ".py":
            return python_lines(path.read_text(encoding="utf-8"))
        if path.suffix == ".c":
            return c_lines(preprocessed(path, compiler))
        return c_lines(path.read_text(encoding="utf-8"))

    privileged = {path for image in images if image.name in PRIVILEGED for path in _files(image)}
    lasting = [m for m in shards.manifests.values() if m.kind == "shard" and m.lives == "forever"]
    return Report(
        images=tuple(_figures(image, shards, lines, library_kib) for image in images),
        privileged_lines=sum(map(lines, privileged)),
        paper_lines=PAPER_LINES,
        memory_kib=sum(memory_kib(manifest, library_kib) for manifest in lasting),
    )


def _figures(image: ShardImage, shards: ShardSet, lines: Callable[[Path], int], library_kib: int) -> Image:
    ours = [path for path in image.c_sources if path.is_relative_to(NANO)]
    python, c, ours_c = (
        sum(map(lines, set(files))) for files in (image.python_modules.values(), image.c_sources, ours)
    )
    return Image(
        name=image.name,
        python_lines=python,
        nano_lines=ours_c,
        micropython_lines=c - ours_c,
        total_lines=python + c,
        image_bytes=image.elf.stat().st_size,
        memory_kib=memory_kib(shards.manifests[image.name], library_kib),
    )


def _files(image: ShardImage) -> set[Path]:
    return {*image.c_sources, *image.python_modules.values()}


def preprocessed(path: Path, compiler: Sequence[str]) -> str:
    """What the preprocessor leaves of the lines of a C file and of C files (not headers) that it includes;
    macros stay as they are written."""
    # -fdirectives-only: deal with #if and #include, expand nothing
    command = [*compiler, "-E", "-fdirectives-only", str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise HostError(f"{path} can't be preprocessed to count its lines", detail=run.stderr)
    own: dict[tuple[str, int], str] = {}
    number, file = 0, ""
    for line in run.stdout.split("\n"):
        if marker := _LINE_MARKER.match(line):
            number, file = int(marker[1]), marker[2]
            continue
        if file.endswith(".c"):
            own[file, number] = line
        number += 1
    return "\n".join(own[place] for place in sorted(own))


def c_lines(text: str) -> int:
    """Lines of C or preprocessed assembly that hold more than comments."""

    def without_comment(match: re.Match[str]) -> str:
        found = match[0]
        return "\n" * found.count("\n") if found.startswith("/") else found

    return sum(1 for line in _C_TOKENS.sub(without_comment, text).split("\n") if line.strip())


def python_lines(text: str) -> int:
    """Lines of Python that hold more than comments and docstrings."""
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _PYTHON_LAYOUT:
            held.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        # a string that stands alone is documentation, wherever it stands
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            held.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(held)
