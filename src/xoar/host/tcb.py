"""How much code the most privileged shards consist of: `xoar tcb`.

Counts the source files that are linked into an image: C and assembly (MicroPython's core and the nano port)
and the frozen Python modules. A line counts when it holds code: no blank lines, comments or docstrings.
Headers are not counted, as they are not in the paper's figure; their inline functions are few.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from xoar.host.build.nano import NANO, ShardImage
from xoar.privilege.shardset import ShardSet

PAPER_LINES = 13_500
"""Lines of the Builder's source in the paper "Breaking Up is Hard to Do" (SOSP 2011)."""

PRIVILEGED = ("bootstrapper", "builder")
"""The shards with rights over other domains: their code is what has to be trusted."""

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
    memory_kib: int  # as its manifest states


@dataclass(frozen=True)
class Report:
    """Figures of all images; the two totals count a file once even if several images contain it."""

    images: tuple[Image, ...]
    privileged_lines: int  # Bootstrapper and Builder together
    paper_lines: int
    memory_kib: int  # of all shards that live on after boot

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)


def report(images: Iterable[ShardImage], shards: ShardSet) -> Report:
    """Counts images; `shards` are the manifests, which state their memory."""
    images = tuple(images)
    privileged = {path for image in images if image.name in PRIVILEGED for path in _files(image)}
    lasting = [m.memory_kib or 0 for m in shards.manifests.values() if m.lives == "forever"]
    return Report(
        images=tuple(_figures(image, shards) for image in images),
        privileged_lines=sum(map(lines, privileged)),
        paper_lines=PAPER_LINES,
        memory_kib=sum(lasting),
    )


def _figures(image: ShardImage, shards: ShardSet) -> Image:
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
        memory_kib=shards.manifests[image.name].memory_kib or 0,
    )


def _files(image: ShardImage) -> set[Path]:
    return {*image.c_sources, *image.python_modules.values()}


def lines(path: Path) -> int:
    """Lines of code of a Python, C or assembly file."""
    text = path.read_text(encoding="utf-8")
    return python_lines(text) if path.suffix == ".py" else c_lines(text)


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
