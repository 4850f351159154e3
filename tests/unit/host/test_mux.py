"""Many commands on one line: two real ends of the line protocol with the mux between, all in memory."""

from hypothesis import given, settings
from hypothesis import strategies as st

from xoar.host.mux import Mux
from xoar.messages.frames import CLOSE, DATA, HELLO, FrameDecoder, encode_frame
from xoar.messages.line import LineClient, LineServer


class World:
    """Console's end, the mux, and commands; `settle` carries bytes until none move."""

    def __init__(self, clients: int = 2) -> None:
        self.server = LineServer()
        self.mux = Mux()
        self.opened: dict[int, str] = {}
        self.got: dict[int, bytes] = {}
        self.clients = {self.mux.attach(): LineClient() for _ in range(clients)}
        self.events: dict[int, list[tuple[str, int, object]]] = {number: [] for number in self.clients}
        self.deaf: set[int] = set()

    def up(self) -> "World":
        self.server.greet()
        for number, client in self.clients.items():
            client.hello(number + 100)
        self.settle()
        self.mux.greet(1)
        self.settle()
        return self

    def settle(self) -> None:
        moved = True
        while moved:
            moved = False
            for number, client in self.clients.items():
                data = client.take(1 << 20)
                self.mux.from_client(number, data)
                moved = moved or bool(data)
            data = self.mux.take_line()
            moved = moved or bool(data)
            for event in self.server.feed(data):
                if event.kind == "open":
                    self.server.accept(event.channel)
                    self.opened[event.channel] = event.data
                elif event.kind == "data":
                    self.got[event.channel] = self.got.get(event.channel, b"") + event.data
                    self.server.consumed(event.channel, len(event.data))
                elif event.kind == "closed":
                    del self.opened[event.channel]
            data = self.server.take(1 << 20)
            moved = moved or bool(data)
            self.mux.from_line(data)
            for number in self.clients.keys() - self.deaf:
                for event in self.clients[number].feed(self.mux.take(number)):
                    self.events[number].append(tuple(event))


def test_nothing_is_sent_before_console_was_heard() -> None:
    world = World()
    for client in world.clients.values():
        client.hello(5)
    world.settle()
    assert not world.mux.heard
    assert world.server.dropped == 0
    assert not any(client.ready for client in world.clients.values())


def test_commands_that_came_early_are_answered_when_console_is_up() -> None:
    world = World().up()
    assert world.mux.ready
    assert all(client.ready for client in world.clients.values())


def test_equal_channel_numbers_of_two_commands_do_not_mix() -> None:
    world = World().up()
    channels = {number: client.open("service", str(number)) for number, client in world.clients.items()}
    assert len(set(channels.values())) == 1
    world.settle()
    for number, client in world.clients.items():
        client.write(channels[number], b"from %d" % number)
    world.settle()
    for channel, request in world.opened.items():
        assert world.got[channel].decode() == f"from {request.split()[1]}"
        world.server.write(channel, request.encode())
    world.settle()
    for number in world.clients:
        received = [data for kind, _, data in world.events[number] if kind == "data"]
        assert received == [f"service {number}".encode()]


def test_a_command_that_goes_away_closes_its_channels_only() -> None:
    world = World().up()
    for client in world.clients.values():
        client.open("service")
        client.open("service")
    world.settle()
    assert len(world.opened) == 4
    gone = min(world.clients)
    del world.clients[gone]
    world.mux.detach(gone)
    world.settle()
    assert len(world.opened) == 2


def test_a_new_hello_of_a_command_closes_its_old_channels() -> None:
    world = World().up()
    first, second = world.clients.values()
    first.open("service")
    second.open("service")
    world.settle()
    first.hello(999)
    world.settle()
    assert first.ready
    assert len(world.opened) == 1


def test_when_console_starts_anew_every_command_hears_of_it() -> None:
    world = World().up()
    for client in world.clients.values():
        client.open("service")
    world.settle()
    world.server = LineServer()
    world.opened.clear()
    world.server.greet()
    world.settle()
    for number, client in world.clients.items():
        assert client.channels == []
        assert world.events[number][-1][0] == "hello"
        client.open("service")
    world.settle()
    assert len(world.opened) == 2


def test_what_waits_for_a_command_that_reads_nothing_is_bounded_by_its_credit() -> None:
    world = World().up()
    deaf, other = world.clients
    channel = world.clients[deaf].open("service")
    world.settle()
    world.deaf.add(deaf)
    (line_channel,) = world.opened
    for _ in range(100):
        world.server.write(line_channel, b"x" * 4096)
        world.settle()
    assert len(world.mux.take(deaf)) < 3 * 4096
    assert channel in world.clients[deaf].channels
    assert world.clients[other].ready


def test_data_for_a_channel_that_is_not_open_is_answered_with_a_close() -> None:
    world = World().up()
    number = min(world.clients)
    world.mux.from_client(number, encode_frame(DATA, 77, bytes(8)))
    (answer,) = FrameDecoder().feed(world.mux.take(number))
    assert (answer.kind, answer.channel) == (CLOSE, 77)
    assert world.mux.take_line() == b""


def test_a_client_may_not_greet_as_if_it_were_console() -> None:
    world = World().up()
    number, client = next(iter(world.clients.items()))
    client.open("service")
    world.settle()
    world.mux.from_client(number, encode_frame(HELLO, 0, b"\x01" + bytes(4)))
    world.settle()
    assert len(world.opened) == 1


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=200)), max_size=20))
@settings(max_examples=60)
def test_garbage_from_either_side_harms_nobody_else(pieces: list[tuple[bool, bytes]]) -> None:
    world = World(3).up()
    vandal, *rest = world.clients
    for from_line, data in pieces:
        if from_line:
            world.mux.from_line(data)
        else:
            world.mux.from_client(vandal, data)
    world.mux.from_line(b"\x7e")
    for number in rest:
        channel = world.clients[number].open("service")
        world.settle()
        assert world.clients[number].writable(channel) > 0


def test_channels_to_the_keeper_do_not_reach_the_line() -> None:
    world = World().up()
    (number, client), (other, _) = world.clients.items()
    channel = client.open("keeper", "forward net0 10.0.2.20 22")
    world.settle()
    assert world.opened == {}
    (request,) = world.mux.requests
    assert request.words == ["forward", "net0", "10.0.2.20", "22"]
    world.mux.answer(request, b"4711\n", "")
    world.settle()
    assert world.events[number][-3:] == [
        ("opened", channel, ""), ("data", channel, b"4711\n"), ("closed", channel, ""),
    ]  # fmt: skip
    assert [event for event in world.events[other] if event[0] != "hello"] == []


def test_an_answer_to_a_command_that_is_gone_goes_nowhere() -> None:
    world = World().up()
    number, client = next(iter(world.clients.items()))
    client.open("keeper", "x")
    world.settle()
    world.mux.detach(number)
    world.mux.answer(world.mux.requests[0], b"", "too late")
