"""Run by the Python that is to run the result: compiles a program and all modules that it can import.

    python3.11 freeze.py INTO FOLDER... -- ENTRY MODULE... -- UNUSED...

ENTRY is the program's module and MODULEs what it loads in ways that can't be seen in its code. They are
looked for in the FOLDERs, then in this Python's library. Below INTO come `<module>.pyc` at the module's
place, without its source, and `lib-dynload`.

What can be imported is found in the code (modulefinder): what could be imported comes along, whether it
ever is or not. UNUSED is where this ends, besides tools for developers, which parts of the library offer
to import, and TLS.
"""

import importlib.machinery
import modulefinder
import py_compile
import shutil
import sys
from pathlib import Path

ALWAYS_UNUSED = ["doctest", "pdb", "pydoc", "ssl", "test", "unittest"]


def main(into: Path, folders: list[str], names: list[str], unused: list[str]) -> None:
    finder = modulefinder.ModuleFinder([*folders, *sys.path], excludes=[*ALWAYS_UNUSED, *unused])
    for name in names:
        finder.import_hook(name)
    for name, module in sorted(finder.modules.items()):
        place: str | None = getattr(module, "__file__", None)
        if place is None:  # built in
            continue
        file = Path(place)
        if file.suffix in importlib.machinery.SOURCE_SUFFIXES:
            target = into.joinpath(
                *name.split("."), *(["__init__"] if getattr(module, "__path__", None) else [])
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            py_compile.compile(
                str(file),
                f"{target}.pyc",
                dfile=f"{name}.py",  # as tracebacks name it
                doraise=True,
                optimize=0,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,  # not the source's time
            )
        else:
            target = into / "lib-dynload" / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


if __name__ == "__main__":
    first = sys.argv.index("--")
    second = sys.argv.index("--", first + 1)
    main(Path(sys.argv[1]), sys.argv[2:first], sys.argv[first + 1 : second], sys.argv[second + 1 :])
