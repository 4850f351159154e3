"""What the Toolstack knows of rollbacks, and how it asks for one."""

from __future__ import annotations

from typing import Any

from xoar.messages.codec import Message
from xoar.messages.errors import ENOENT, ETIMEDOUT
from xoar.messages.records import ROLLBACK
from xoar.messages.schema import BY_NAME
from xoar.toolstack.rollbacks import KEPT, Rollbacks, policies
from xoar.toolstack.waits import Waits


class Restorer:
    """In place of the channel."""

    more = False

    def __init__(self) -> None:
        self.told: list[Message] = []

    def tell(self, target: str, life: int, at_ms: int = 0) -> None:
        fields = BY_NAME["rolled_back"].record.value(target, life, "toolstack", "none", 3, at_ms, *[1] * 6)
        self.told.append(Message("rolled_back", 0, fields))

    def receive(self) -> list[Message]:
        told, self.told = self.told, []
        return told


class Request:
    def __init__(self) -> None:
        self.answers: list[tuple[Any, ...]] = []

    def answer(self, kind: str, **fields: Any) -> None:
        self.answers.append((kind, fields))

    def refuse(self, errno: int, text: str) -> None:
        self.answers.append((errno, text))


class Host:
    def __init__(self) -> None:
        self.now = 1000
        self.restorer = Restorer()
        self.kicked = 0
        self.waits = Waits(lambda: self.now)
        self.rollbacks = Rollbacks(
            self.restorer,  # type: ignore[arg-type]
            {"logic": "after each request"},
            {"logic": self.kick},
            self.waits,
            lambda: self.now,
        )

    def kick(self) -> None:
        self.kicked += 1

    def turn(self) -> None:
        self.rollbacks.turn()
        self.waits.poll()


def test_the_command_line_says_when_a_shard_is_rolled_back() -> None:
    words = {"restarted": ["logic:after_each_request", "clock:after_60_s"]}
    assert policies(lambda key: words.get(key, [])) == {"logic": "after each request", "clock": "after 60 s"}


def test_a_rollback_is_asked_for_and_answered_when_it_was() -> None:
    host, request = Host(), Request()
    host.restorer.tell("logic", 1)
    host.turn()
    host.rollbacks.ask("logic", 5000, request)
    host.turn()
    assert host.kicked == 0  # Console may be in the midst of the turn that brought the request
    host.now += 100
    host.turn()
    assert host.kicked == 1 and request.answers == []
    host.restorer.tell("logic", 2)
    host.turn()
    ((kind, fields),) = request.answers
    assert kind == "rolled" and fields["rollback"].life == 2
    assert isinstance(fields["rollback"], ROLLBACK.value)


def test_what_can_not_be_rolled_back_is_refused_and_silence_is_an_error() -> None:
    host, request = Host(), Request()
    host.rollbacks.ask("builder", 5000, request)
    assert request.answers[0][0] == ENOENT and "logic" in request.answers[0][1]
    host.rollbacks.ask("logic", 5000, request)
    host.now += 5000
    host.turn()
    assert request.answers[1][0] == ETIMEDOUT


def test_a_shard_has_policy_number_and_age() -> None:
    host = Host()
    assert host.rollbacks.of("logic") == ("after each request", 0, 0)
    assert host.rollbacks.of("builder") == ("", 0, 0)
    host.restorer.tell("logic", 42, at_ms=400)
    host.turn()
    assert host.rollbacks.of("logic") == ("after each request", 41, 600)


def test_the_newest_records_are_kept_and_come_in_pages() -> None:
    host = Host()
    for life in range(1, KEPT + 101):
        host.restorer.tell("logic", life)
    host.turn()
    seen: list[int] = []
    start, more = 0, 1
    while more:
        request = Request()
        host.rollbacks.page(start, request)
        ((_, fields),) = request.answers
        assert len(fields["records"]) <= 32
        seen += [record.life for record in fields["records"]]
        start, more = fields["next"], fields["more"]
    assert seen == list(range(KEPT + 101 - len(seen), KEPT + 101)) and KEPT <= len(seen) < KEPT + 32
    host.rollbacks.page(start + 7, request := Request())
    assert request.answers[0][1]["records"] == [] and not request.answers[0][1]["more"]
