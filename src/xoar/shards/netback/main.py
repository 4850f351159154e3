"""The NetBack driver domain's agent: run by its init, and again whenever it ends."""

import sys

from xoar.netback.agent import Agent, Settings
from xoar.xenstore import linux


def main() -> None:
    """Serves until the domain is destroyed. Words name=value of the command line replace Settings' own."""
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    with linux.connect(words.pop("xenstore", linux.DEVICE)) as store:
        Agent(store, Settings(**words)).run()


if __name__ == "__main__":
    main()
