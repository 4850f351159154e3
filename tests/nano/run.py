"""Runs one file of tests under MicroPython: every function test_* in it, with a traceback for each failure.

Usage: micropython run.py FILE_WITHOUT_SUFFIX (MICROPYPATH holds src and tests/nano)
Files here import nothing of pytest, so that they run as they are under CPython's pytest, too.
"""

import gc
import sys

_GC_THRESHOLD = 512 * 1024  # nano/main.c: a heap that is full before it is collected gets scattered


def main(name):
    gc.threshold(_GC_THRESHOLD)
    module = __import__(name)
    # one list of tests in a fixed order, as dir() has none to rely on
    names = sorted(test for test in dir(module) if test.startswith("test_"))
    failed = 0
    for test in names:
        try:
            getattr(module, test)()
        except Exception as error:
            failed += 1
            print("FAILED", test)
            sys.print_exception(error)
    print(len(names) - failed, "passed,", failed, "failed")
    # a file whose tests are not found must not count as passed
    return 1 if failed or not names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
