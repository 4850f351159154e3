"""The cache: results of builds under a name that holds a hash of everything they were made from.

A result is a folder `builds/<what>-<key>/`. It is made under a temporary name and renamed when it is
complete, so a folder with the final name is always whole; a build that fails or is interrupted leaves
only its log, `logs/<what>-<key>.log`. A lock per result keeps two commands from building the same
thing at once: the second waits and then takes the first one's result.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from xoar.host import commands
from xoar.host.errors import HostError, disk_errors
from xoar.host.progress import Reporter, Step

CHECKOUT = Path(__file__).resolve().parents[3]


def root() -> Path:
    """The cache's folder: `$XOAR_CACHE`, else `xoar` in the user's cache folder."""
    named = os.environ.get("XOAR_CACHE")
    if named:
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xoar"


def key(*inputs: bytes | str | Path) -> str:
    """A name for a set of inputs: 16 hex digits of a hash over all of them, in order.

    A Path stands for the contents of that file, or of all files below that folder with their names.
    """
    digest = hashlib.sha256()
    for item in inputs:
        if isinstance(item, Path) and item.is_dir():
            for file in sorted(path for path in item.rglob("*") if path.is_file()):
                _add(digest, str(file.relative_to(item)).encode())
                _add(digest, file.read_bytes())
        elif isinstance(item, Path):
            _add(digest, item.read_bytes())
        else:
            _add(digest, item.encode() if isinstance(item, str) else item)
    return digest.hexdigest()[:16]


def _add(digest: hashlib._Hash, data: bytes) -> None:
    digest.update(len(data).to_bytes(8, "little"))  # so that ("ab", "c") and ("a", "bc") differ
    digest.update(data)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock of that name; waits while another process has it."""
    folder = root() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / name, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Workspace:
    """What a recipe gets: an empty `result` folder to fill, a `scratch` folder, a `log`, its `step`."""

    def __init__(self, result: Path, scratch: Path, log: Path, step: Step) -> None:
        self.result = result
        self.scratch = scratch
        self.log = log
        self.step = step

    def run(
        self,
        argv: list[str],
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], bool | None] | None = None,
    ) -> None:
        """Run a program in the scratch folder, logged. Raises CommandError."""
        commands.run(argv, log=self.log, cwd=cwd or self.scratch, env=env, on_line=on_line)


def find(what: str, name: str) -> Path | None:
    """The finished result for that key, or None."""
    path = root() / "builds" / f"{what}-{name}"
    return path if path.is_dir() else None


def build(
    what: str,
    name: str,
    recipe: Callable[[Workspace], None],
    show: Reporter,
    *,
    title: str = "",
    total: int = 0,
    rebuild: bool = False,
) -> Path:
    """The folder with the result for `what` and key `name`; made by `recipe` if it isn't there.

    With `rebuild` it is made anyway, and takes the place of the old one when it is complete. `title` is what
    the progress display says (default: "building <what>"), `total` its units of work.
    Raises HostError with the log's place; then nothing is left but the log.
    """
    done = find(what, name)
    if done is not None and not rebuild:
        return done
    final = root() / "builds" / f"{what}-{name}"
    log = root() / "logs" / f"{what}-{name}.log"
    with disk_errors(root()):
        final.parent.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        with locked(final.name):
            if rebuild or not final.is_dir():
                log.write_text("")
                with show.step(title or f"building {what}", total) as step:
                    _make(final, recipe, log, step)
    return final


def _make(final: Path, recipe: Callable[[Workspace], None], log: Path, step: Step) -> None:
    temporary = final.with_name(f".{final.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # of a build that was killed
    result, scratch = temporary / "result", temporary / "scratch"
    try:
        result.mkdir(parents=True)
        scratch.mkdir()
        recipe(Workspace(result, scratch, log, step))
        if final.is_dir():
            final.rename(temporary / "old")
        result.rename(final)
    except HostError as error:
        error.log = error.log or log
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
