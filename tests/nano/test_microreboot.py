"""Snapshots, rollbacks and what is told of them, as Restorer runs them: under MicroPython, too."""

from array import array

from xoar.abi import xen as abi
from xoar.messages.channel import Channel
from xoar.microreboot.restorer import Kick, Restorer, Target
from xoar.microreboot.teller import Teller
from xoar.toolstack.rollbacks import Rollbacks
from xoar.toolstack.waits import Waits
from xoar.xen.ring import xenstore_rings

_PAGE, _FRAMES, _LIFE, _LINK = 4096, 40, 15, 5
_OWN, _STORE = 3, 4  # ports


class _Domain:
    def __init__(self):
        self.memory = bytearray((_FRAMES + 1) * _PAGE)
        self.dirty = []
        self.notified = []
        self.time = 0

    def write(self, address, data):
        self.memory[address : address + len(data)] = data
        self.dirty.append(address // _PAGE)

    # the machine

    def map_all(self, domid, count):
        return memoryview(self.memory)

    def room(self, count):
        return memoryview(bytearray(count * _PAGE))

    def buffer(self, length):
        words = array("I", [0] * (length // 4))
        self.words = words
        return memoryview(bytearray(length)), memoryview(words)

    def pause(self, domid):
        pass

    unpause = log_dirty = pause

    def ended(self, domid):
        return abi.SHUTDOWN_crash

    def resume(self, domid):
        self.notified.append("resumed")

    def context(self, domid):
        return bytearray(b"context")

    def set_context(self, domid, state):
        assert state == b"context"

    def take_dirty(self, domid, bitmap, pages):
        for index in range(len(self.words)):
            self.words[index] = 0
        for frame in self.dirty:
            self.words[frame // 32] |= 1 << frame % 32
        self.dirty.clear()

    def notify(self, port):
        self.notified.append(port)

    def now(self):
        self.time += 1000000
        return self.time


def _page():
    words = array("I", [0] * 1024)
    view = memoryview(words)
    return _Shared(view)


class _Shared:
    """Bytes and words of one page, also where a view has no other type."""

    def __init__(self, words):
        self.words = words
        self.bytes = _Bytes(words)


class _Bytes:
    def __init__(self, words):
        self._words = words

    def __getitem__(self, where):
        return bytes([self._words[at // 4] >> at % 4 * 8 & 255 for at in range(where.start or 0, where.stop)])

    def __setitem__(self, where, data):
        at = where.start or 0
        for value in bytes(data):
            shift = at % 4 * 8
            self._words[at // 4] = self._words[at // 4] & ~(255 << shift) & 0xFFFFFFFF | value << shift
            at += 1


def test_a_shard_is_put_back_and_toolstack_hears_of_it():
    domain = _Domain()
    domain.write(7 * _PAGE + 5, b"content")
    page = _page()
    to_toolstack, back = xenstore_rings(page)
    teller = Teller(to_toolstack, lambda: None, domain.now)
    target = Target("logic", 4, _FRAMES, _OWN, 0, [range(_LINK, _LINK + 1)], [], [])
    restorer = Restorer(domain, [target], {_STORE: Kick("xenstore", "logic", True)}, _LIFE, teller.tell)
    restorer.turn([_OWN])
    before = bytes(domain.memory[: _LIFE * _PAGE])
    for life in (2, 3):
        domain.write(7 * _PAGE, b"other")
        domain.write(20 * _PAGE, b"planted")
        domain.memory[_LINK * _PAGE] = 7
        restorer.turn([_STORE])
        assert bytes(domain.memory[: _LIFE * _PAGE]) == before
        assert domain.memory[_LIFE * _PAGE] == life
        assert domain.memory[20 * _PAGE : 20 * _PAGE + 7] == bytes(7)
    assert domain.notified == [_STORE, _OWN] + ["resumed", _STORE, _OWN] * 2
    teller.flush()

    channel = Channel(to_toolstack, back, lambda: None, "restorer", "toolstack")
    known = Rollbacks(channel, {"logic": "after each request"}, {}, Waits(lambda: 0), lambda: 100)
    while known.turn():
        pass
    policy, count, age = known.of("logic")
    assert (policy, count) == ("after each request", 2) and age < 100
