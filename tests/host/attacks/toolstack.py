"""A Toolstack that an attacker has taken over."""

from attempts import run

from xoar.xen import boot


def main():
    boot.ready()
    run([1, 2, 3, 4], print)
    print("attempts done")
    while True:
        boot.events.wait(None)
