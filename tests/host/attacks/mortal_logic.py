"""XenStore's Logic, which serves as always, but dies at some requests of guests: when, where and how follow
from the number of its life.

Of three lives in a row one at least does not end that way: a request at which three fail is refused.
"""

from forging import break_ring, rubbish

import nano
from xoar.abi import xen as abi
from xoar.messages.channel import Channel
from xoar.messages.codec import encode
from xoar.xen import boot, events
from xoar.xen.ring import xenstore_rings
from xoar.xenstore.statelink import StateLink

SEED = 20261127
ONE_IN = 40  # lives that have a guest's request

_FIRST_GUEST = 32
_SCHED_OP, _SHUTDOWN = 29, 2
_IMAGE = 0x200000
_ANSWERS = ("store_answer", "store_refusal")

POINTS = ("has it", "asks State", "has asked State", "knows State's word", "half an answer", "has answered")


class Death(BaseException):
    """Logic answers what a request raises with EIO; not this."""


def crash(link):
    raise Death("mortal")


def end(link):
    """As a domain that powers itself off."""
    reason = bytearray(4)
    reason[0] = abi.SHUTDOWN_poweroff
    nano.hypercall(_SCHED_OP, _SHUTDOWN, reason)


def wild(link):
    """No code is left: Xen ends it, or it runs what it finds."""
    nano.memory(_IMAGE, 0x10000)[:] = bytes(0x10000)


def hang(link):
    while True:
        pass


def deaf(link):
    while True:
        events.wait()


def answers(link):
    """Answers of requests that it has not, operations of nobody's requests, messages of others."""
    for number in (link.number + 1, link.number - 1, 0, 0xFFFFFFFF):
        link._channel.send("store_answer", number, payload=b"lie")
        link._channel.send("store_put", number, path=b"/local/domain/32/data/x", value=b"lie")
    link._channel.send("release", link.number, domid=_FIRST_GUEST)
    events.notify(link.port)
    hang(link)


def noise(link):
    """No frames, then indices that can't be."""
    link._channel._outgoing.write(rubbish(900))
    events.notify(link.port)
    events.wait(events.now() + 20_000_000)
    break_ring(link.page)
    events.notify(link.port)
    hang(link)


def fill(link):
    """Noise over all of the page, State's half included."""
    link.page.bytes[:] = rubbish(4096)
    events.notify(link.port)
    hang(link)


# noise that completes half an answer, or overwrites one that State is reading, is an answer: nobody can know
COMPLETED = {answers: POINTS[4:5], noise: POINTS[4:5], fill: (POINTS[2], POINTS[4], POINTS[5])}
WAYS = (crash, noise, hang, end, answers, deaf, wild, fill)


def mixed(number):
    """32 bits that look random, from a number."""
    for _ in range(3):
        number = (number * 1664525 + 1013904223) & 0xFFFFFFFF
        number ^= number >> 15
    return number


class Mortal(StateLink):
    """`life` is the number of the one that it is in, `page` and `port` are those of the link."""

    def __init__(self, channel, wait, page, port):
        super().__init__(channel, wait)
        self.page = page
        self.port = port
        self.number = 0
        self._due = self._way = None

    def begin(self, life):
        """Its life has this number: whether it is to end at its request, where and how."""
        chance = mixed(SEED + life)
        if life % 3 and chance % ONE_IN == 0:
            chance //= ONE_IN
            self._due = POINTS[chance % len(POINTS)]
            self._way = WAYS[chance // len(POINTS) % len(WAYS)]
            if self._due in COMPLETED.get(self._way, ()):
                self._due = "knows State's word"
        self._life = life

    def _next(self):
        message = super()._next()
        if message.kind == "store_request":
            self.number = message.id
            if message.fields.domid < _FIRST_GUEST:
                self._due = None
            self._at("has it")
        else:
            self._at("knows State's word")
        return message

    def _send(self, kind, id, values):
        if kind not in _ANSWERS:
            self._at("asks State")
            super()._send(kind, id, values)
            self._at("has asked State", True)
        elif self._due == "half an answer":
            field = "payload" if kind == "store_answer" else "name"
            frame = encode(kind, id, **{field: values[0]})
            self._channel._outgoing.write(frame[: len(frame) // 2])
            self._at("half an answer", True)
        else:
            super()._send(kind, id, values)
            self._at("has answered", True)

    def _at(self, point, signals=False):
        if self._due == point:
            if signals and self._life % 2:
                events.notify(self.port)
            print(f"mortal: life {self._life}, request {self.number}: {self._way.__name__}, {point}")
            self._way(self)


def main():
    state = boot.uses("xenstore")
    to_state, to_logic = xenstore_rings(state.page)
    bell = events.Bell(state.port)

    def wait():
        bell.send()
        events.wait()

    channel = Channel(to_logic, to_state, bell.ring, "xenstore", "logic")
    link = Mortal(channel, wait, state.page, state.port)
    life = boot.snapshot()
    boot.ready()
    if life <= 1:
        print(f"mortal: seed {SEED}")
    link.begin(life)
    while True:
        link.serve()
