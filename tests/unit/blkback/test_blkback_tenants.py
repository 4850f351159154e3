"""The agent and tenants: each has its own connection to XenStore, and no more rights than on a host."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tenant_store import DRIVER, HOME, HOST, Store, store

from xoar.blkback import dm
from xoar.blkback.agent import Agent
from xoar.blkback.errors import RequestError
from xoar.blkback.volumes import Pool, Volume
from xoar.xenstore.errors import Refused

ACME, BETA = 32512, 32513
TENANTS = {ACME: "acme", BETA: "beta"}
MIB = 1024


class FakeVolumes:
    """Volumes as the agent sees them; `log` has what was done with which."""

    def __init__(self) -> None:
        self.table = {name: Volume(8 * MIB, "", False) for name in ("debian", "secret", "acme+own")}
        self.log: list[str] = []

    def pool(self) -> Pool:
        return Pool(1000, 10, 100)

    def status(self, name: str) -> dm.Status | None:
        if name not in self.table:
            return None
        return dm.Status(254, 10 + list(self.table).index(name), 0, "16 -")

    def get(self, name: str) -> Volume:
        if name not in self.table:
            raise RequestError(errno.ENOENT, f"there is no volume {name}")
        return self.table[name]

    def create(self, name: str, size: int) -> None:
        self.log.append(f"create {name}")
        if name in self.table:
            raise RequestError(errno.EEXIST, "there is one")
        self.table = {**self.table, name: Volume(-(-size // (4 * MIB)) * 4 * MIB, "", False)}

    def clone(self, source: str, name: str) -> None:
        self.log.append(f"clone {source} {name}")
        self.table = {**self.table, name: Volume(self.get(source).size_kib, source, False)}

    def grow(self, name: str, size: int) -> None:
        self.table = {**self.table, name: self.get(name)._replace(size_kib=size)}

    def delete(self, name: str) -> None:
        self.get(name)
        self.table = {key: value for key, value in self.table.items() if key != name}


class Bench:
    """An agent; the host's Toolstack and two tenants', ACME and BETA."""

    def __init__(self, made: Store) -> None:
        self.made = made
        self.volumes = FakeVolumes()
        self.restart()
        made.delegate(ACME, "acme", volumes_kib=str(64 * MIB), images__debian="")
        made.delegate(BETA, "beta", volumes_kib=str(64 * MIB))
        self.turn()

    def restart(self) -> None:
        self.connection = self.made.connection(DRIVER)
        self.agent = Agent(self.connection, self.volumes, "", lambda: None)  # type: ignore[arg-type]
        self.agent.start()

    def turn(self, times: int = 3) -> None:
        for _ in range(times):
            while (event := self.connection.next_event(0.01)) is not None:
                self.agent.event(*event)
            self.agent.turn()

    def base(self, who: int) -> str:
        return HOME if who == HOST else f"{HOME}/tenants/{who}"

    def put(self, who: int, number: int | str, line: str) -> None:
        self.made.domain(who).write(f"{self.base(who)}/requests/{number}", line)

    def says(self, who: int, path: str) -> str | None:
        return self.made.domain(who).text(f"{self.base(who)}/service/{path}")

    def names(self, who: int, path: str) -> list[str]:
        return self.made.domain(who).children(f"{self.base(who)}/service/{path}")

    def ask(self, who: int, number: int, line: str) -> str:
        self.put(who, number, line)
        return self.answer(who, number)

    def answer(self, who: int, number: int) -> str:
        end = time.monotonic() + 10
        while (reply := self.says(who, f"replies/{number}")) is None or reply.startswith("progress"):
            self.turn(1)
            assert time.monotonic() < end, reply
        return reply

    def attach(self, who: int, guest: int, volume: str, mode: str = "w") -> str | None:
        path = self.made.make_back_end("vbd", who, guest, 51712)
        toolstack = self.made.domain(who)
        for name, value in (("online", "1"), ("state", "1"), ("mode", mode), ("params", volume)):
            toolstack.write(f"{path}/{name}", value)
        self.turn()
        return self.node(guest, "hotplug-status")

    def node(self, guest: int, name: str) -> str | None:
        return self.made.domain(0).text(f"{HOME}/backend/vbd/{guest}/51712/{name}")

    def number(self, volume: str) -> str:
        return f"fe:{10 + list(self.volumes.table).index(volume):x}"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with store(tmp_path) as made:
        yield Bench(made)


def test_a_tenant_sees_its_own_volumes_and_the_host_its_own(bench: Bench) -> None:
    assert bench.says(ACME, "state") == "ready"
    assert bench.names(ACME, "volumes") == ["own"]
    assert bench.names(BETA, "volumes") == []
    assert bench.names(HOST, "volumes") == ["debian", "secret"]
    assert bench.says(ACME, "pool") == f"size_kib={64 * MIB} used_kib={8 * MIB}"
    assert bench.says(HOST, "pool") == "size_kib=1000 used_kib=10"
    assert bench.says(HOST, "tenants/acme") == f"volumes=1 size_kib={8 * MIB} used_kib=8"
    assert bench.says(HOST, "tenants/beta") == "volumes=0 size_kib=0 used_kib=0"


def test_a_tenant_sees_nothing_that_is_said_to_others(bench: Bench) -> None:
    for path in (f"{HOME}/service/tenants/acme", f"{HOME}/tenants/{ACME}/service/state"):
        with pytest.raises(Refused, match="EACCES"):
            bench.made.domain(BETA).read(path)


def test_one_name_means_a_volume_of_each(bench: Bench) -> None:
    for who in (HOST, ACME, BETA):
        assert bench.ask(who, 1, f"create same {4 * MIB}") == "ok"
    assert {"same", "acme+same", "beta+same"} < set(bench.volumes.table)
    for guest, who, volume in ((40, HOST, "same"), (41, ACME, "acme+same"), (42, BETA, "beta+same")):
        assert bench.attach(who, guest, "same") == "connected"
        assert bench.node(guest, "physical-device") == bench.number(volume)
    assert bench.says(ACME, "volumes/same") == f"size_kib={4 * MIB} used_kib=8 origin=- users=41 state=ok"
    assert bench.ask(BETA, 2, "delete same").startswith(
        f"error {errno.EBUSY} volume same is in use by domain 42"
    )


def test_volumes_of_others_are_not_there(bench: Bench) -> None:
    bench.ask(BETA, 1, f"create theirs {4 * MIB}")
    for number, volume in enumerate(("theirs", "secret", "beta+theirs", "debian", "acme+own"), 40):
        assert bench.attach(ACME, number, volume) == "error"
        assert bench.node(number, "physical-device") == ""
    for number, volume in enumerate(("theirs", "own", "acme+own"), 50):
        assert bench.attach(HOST, number, volume) == "error"
    for number, line in enumerate(("delete theirs", "delete secret", "clone secret x", "clone theirs x"), 1):
        assert bench.ask(ACME, number, line).startswith(f"error {errno.ENOENT} ")
    assert bench.ask(HOST, 1, "delete acme+own").startswith(f"error {errno.EINVAL} ")
    assert bench.ask(ACME, 9, "delete beta+theirs").startswith(f"error {errno.EINVAL} ")


def test_who_owns_the_node_counts_and_not_what_is_written_there(bench: Bench) -> None:
    path = bench.made.make_back_end("vbd", ACME, 40, 51712)
    toolstack = bench.made.domain(ACME)
    with pytest.raises(Refused, match="EPERM"):
        toolstack.set_perms(path, [f"n{HOST}", f"b{DRIVER}"])
    for name, value in (
        ("online", "1"),
        ("state", "1"),
        ("mode", "w"),
        ("owner", str(HOST)),
        ("params", "secret"),
    ):
        toolstack.write(f"{path}/{name}", value)
    bench.turn()
    assert bench.node(40, "hotplug-error") == "there is no volume acme+secret"


def test_an_image_can_be_cloned_and_nothing_else_done_with_it(bench: Bench) -> None:
    assert bench.ask(ACME, 1, "clone debian root") == "ok"
    assert bench.volumes.log == ["clone debian acme+root"]
    assert bench.says(ACME, "volumes/root") == f"size_kib={8 * MIB} used_kib=8 origin=- users=- state=ok"
    assert bench.ask(ACME, 2, "clone root twin") == "ok"
    assert " origin=root " in (bench.says(ACME, "volumes/twin") or "")
    for number, line in enumerate(("delete debian", f"grow debian {16 * MIB}"), 3):
        assert bench.ask(ACME, number, line).startswith(f"error {errno.ENOENT} ")
    assert bench.ask(BETA, 1, "clone debian root").startswith(f"error {errno.ENOENT} ")
    assert "debian" in bench.volumes.table


def test_a_tenants_own_volume_comes_before_an_image_of_that_name(bench: Bench) -> None:
    bench.ask(ACME, 1, f"create debian {4 * MIB}")
    assert bench.ask(ACME, 2, "clone debian copy") == "ok"
    assert bench.volumes.log[-1] == "clone acme+debian acme+copy"


def test_images_may_have_dots_and_change_while_they_serve(bench: Bench) -> None:
    bench.volumes.table["debian-12.5"] = Volume(4 * MIB, "", False)
    host = bench.made.domain(HOST)
    host.write(f"{HOME}/tenants/{BETA}/images/debian-12@5", "")
    bench.turn()
    assert bench.ask(BETA, 1, "clone debian-12.5 root") == "ok"
    host.rm(f"{HOME}/tenants/{BETA}/images/debian-12@5")
    bench.turn()
    assert bench.ask(BETA, 2, "clone debian-12.5 more").startswith(f"error {errno.ENOENT} ")


def test_sizes_together_stay_within_the_quota(bench: Bench) -> None:
    assert bench.ask(ACME, 1, f"create big {52 * MIB}") == "ok"
    refused = bench.ask(ACME, 2, f"create more {5 * MIB}")
    assert refused == (
        f"error {errno.EDQUOT} the quota is {64 * MIB} KiB: volumes have {60 * MIB},"
        f" and {8 * MIB} more are asked for"
    )
    assert bench.ask(ACME, 3, "clone debian root").startswith(f"error {errno.EDQUOT} ")
    assert bench.ask(ACME, 4, f"grow own {13 * MIB}").startswith(f"error {errno.EDQUOT} ")
    assert bench.ask(ACME, 5, f"grow own {12 * MIB}") == "ok"
    assert bench.ask(ACME, 6, f"create one {1}").startswith(f"error {errno.EDQUOT} ")
    assert bench.says(ACME, "pool") == f"size_kib={64 * MIB} used_kib={64 * MIB}"
    assert bench.ask(ACME, 7, "delete big") == bench.ask(ACME, 8, f"create more {5 * MIB}") == "ok"
    assert (
        bench.ask(BETA, 1, f"create big {64 * MIB}") == bench.ask(HOST, 1, f"create big {999 * MIB}") == "ok"
    )


def test_a_tenant_has_so_many_volumes(bench: Bench) -> None:
    bench.volumes.table |= {f"beta+v{number}": Volume(0, "", False) for number in range(64)}
    assert bench.ask(BETA, 1, "create v64 4").startswith(f"error {errno.EDQUOT} the quota is 64 volumes")
    assert bench.ask(BETA, 2, "delete v63") == bench.ask(BETA, 3, "create v64 4") == "ok"


def test_more_names_than_a_node_takes_are_not_all_shown_and_that_is_all(bench: Bench) -> None:
    bench.volumes.table |= {f"beta+{number:064}": Volume(0, "", False) for number in range(64)}
    assert bench.ask(BETA, 1, f"grow {0:064} {4 * MIB}") == "ok"
    assert 20 < len(bench.names(BETA, "volumes")) < 40
    assert bench.says(HOST, "tenants/beta") == f"volumes=64 size_kib={4 * MIB} used_kib={64 * 8}"
    assert bench.ask(ACME, 1, "create v 4") == "ok"


def test_a_quota_that_is_no_number_is_none(bench: Bench) -> None:
    bench.made.domain(HOST).write(f"{HOME}/tenants/{BETA}/volumes_kib", "9" * 30)
    bench.turn()
    assert bench.ask(BETA, 1, "create v 4").startswith(f"error {errno.EDQUOT} ")


def test_import_and_export_are_the_operators(bench: Bench) -> None:
    sha256 = "0" * 64
    for number, line in enumerate(
        (f"import v raw 1048576 4096 4 {sha256}", "export own 1048576 99999999"), 1
    ):
        reply = bench.ask(ACME, number, line)
        assert reply.startswith(f"error {errno.EOPNOTSUPP} ") and "the host's operator" in reply


def test_a_withdrawn_tenant_keeps_what_it_has_and_gets_no_more(bench: Bench) -> None:
    assert bench.attach(ACME, 40, "own") == "connected"
    bench.made.withdraw(ACME)
    bench.turn()
    assert bench.node(40, "physical-device") == bench.number("acme+own")
    assert bench.attach(ACME, 41, "own") == "error"
    assert "not delegated" in (bench.node(41, "hotplug-error") or "")
    assert bench.says(HOST, "tenants/acme") == f"volumes=1 size_kib={8 * MIB} used_kib=8"
    assert bench.made.domain(HOST).children(f"{HOME}/tenants") == [str(BETA)]
    bench.restart()
    bench.turn()
    bench.made.delegate(ACME, "acme", volumes_kib=str(64 * MIB))
    bench.turn()
    assert bench.says(ACME, "volumes/own") == f"size_kib={8 * MIB} used_kib=8 origin=- users=40 state=ok"
    assert bench.ask(ACME, 1, "delete own").startswith(f"error {errno.EBUSY} ")
    assert bench.attach(ACME, 42, "own") == "error"
    bench.made.domain(0).rm(f"{HOME}/backend/vbd/40")
    assert bench.attach(ACME, 43, "own") == "connected"


def test_volumes_belong_to_the_name_and_not_to_the_toolstack(bench: Bench) -> None:
    bench.made.withdraw(ACME)
    bench.made.withdraw(BETA)
    bench.made.delegate(BETA, "acme", volumes_kib=str(8 * MIB))
    bench.made.delegate(ACME, "beta", volumes_kib=str(8 * MIB))
    bench.turn()
    assert (bench.names(ACME, "volumes"), bench.names(BETA, "volumes")) == ([], ["own"])


def test_all_is_said_again_to_a_tenant_whose_nodes_were_made_anew(bench: Bench) -> None:
    bench.ask(ACME, 1, f"create v {4 * MIB}")
    bench.made.withdraw(ACME)
    bench.made.delegate(ACME, "acme", volumes_kib=str(32 * MIB))
    bench.turn()
    assert bench.says(ACME, "state") == "ready"
    assert bench.names(ACME, "volumes") == ["own", "v"]
    assert bench.says(ACME, "pool") == f"size_kib={32 * MIB} used_kib={12 * MIB}"
    assert bench.ask(ACME, 1, "delete v") == "ok"


@pytest.mark.parametrize("turns", [True, False])
def test_all_is_said_again_to_a_toolstack_that_is_built_anew(bench: Bench, turns: bool) -> None:
    bench.ask(ACME, 1, f"create v {4 * MIB}")
    for _ in bench.made.build_anew(ACME, "acme"):
        if turns:
            bench.turn()
    bench.turn()
    assert bench.says(ACME, "state") == "ready" and bench.names(ACME, "volumes") == ["own", "v"]
    assert bench.ask(ACME, 1, "delete v") == "ok"


def test_what_was_refused_while_nodes_were_being_made_is_said_once_they_are_whole(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The volumes come before the node is there for them, the state after that."""
    write = bench.connection.write

    def refused(path: str, *more: str) -> None:
        if path.startswith(f"tenants/{ACME}/service/volumes"):
            raise Refused("EACCES")
        write(path, *more)

    monkeypatch.setattr(bench.connection, "write", refused)
    for _ in bench.made.build_anew(ACME, "acme"):
        bench.turn()
    assert (bench.says(ACME, "state"), bench.names(ACME, "volumes")) == ("ready", [])
    monkeypatch.undo()
    bench.turn()
    assert bench.names(ACME, "volumes") == ["own"]


@pytest.mark.parametrize("name", ["", "x" * 17, "UP", "a+b", "a_b", "\xff"])
def test_a_tenant_without_a_plain_name_is_none(bench: Bench, name: str) -> None:
    bench.made.withdraw(BETA)
    bench.made.delegate(BETA, name, volumes_kib=str(64 * MIB))
    bench.put(BETA, 1, "create v 4")
    bench.turn()
    assert bench.says(BETA, "state") is None
    assert bench.attach(BETA, 40, "v") == "error"
    assert bench.ask(ACME, 1, "create v 4") == "ok"


def test_all_are_served_in_turn(bench: Bench) -> None:
    for number in range(1, 9):
        bench.put(ACME, number, f"create v{number} 4")
    bench.put(BETA, 1, "create v 4")
    bench.put(HOST, 1, "create v 4")
    for who, number in ((BETA, 1), (HOST, 1), (ACME, 8)):
        assert bench.answer(who, number) == "ok"
    assert {"create beta+v", "create v", "create acme+v1"} == set(bench.volumes.log[:3])


def test_only_so_many_requests_wait(bench: Bench) -> None:
    for number in range(1, 100):
        bench.put(ACME, number, "delete nothing")
    bench.turn(1)
    # one of 16 is at work already
    assert bench.says(ACME, "replies/17") == f"error {errno.EBUSY} 16 requests wait already"
    assert bench.ask(BETA, 1, "create v 4") == "ok"
    bench.answer(ACME, 16)
    assert len(bench.names(ACME, "replies")) == 64  # no more are looked at
    acme = bench.made.domain(ACME)
    for number in range(1, 65):
        acme.rm(f"{bench.base(ACME)}/requests/{number}")
    assert bench.answer(ACME, 80).startswith(f"error {errno.ENOENT} ")
    assert "1" not in bench.names(ACME, "replies")


def test_rubbish_is_answered_or_left_alone_and_the_others_are_served(bench: Bench) -> None:
    acme = bench.made.domain(ACME)
    requests = f"{bench.base(ACME)}/requests"
    for node in ("x", "01", "-1", "9" * 11, "1@2", "service"):
        acme.write(f"{requests}/{node}", "create v 4")
    acme.write(f"{requests}/1/2/3", "create v 4")
    acme.write(f"{requests}/2", b"\xff\0\n create")
    acme.write(f"{requests}/3", "create " + "v" * 1500)
    acme.write(f"{requests}/4", "create v 4 5\ncreate w 4")
    acme.write(f"{requests}/5", "create v 4")
    acme.set_perms(f"{requests}/5", [f"n{ACME}"])
    for number in (1, 2, 3, 4, 5):
        assert bench.answer(ACME, number).startswith(f"error {errno.EINVAL} ")
    assert bench.names(ACME, "replies") == ["1", "2", "3", "4", "5"]
    assert bench.volumes.log == []
    assert bench.ask(BETA, 1, "create v 4") == "ok"


def test_a_device_that_hides_or_is_no_device_hurts_nobody(bench: Bench) -> None:
    acme = bench.made.domain(ACME)
    for guest, leaf in ((40, ""), (41, "/params"), (42, "/hotplug-status")):
        path = bench.made.make_back_end("vbd", ACME, guest, 51712)
        for name in ("online", "state", "params", "mode", "hotplug-status"):
            acme.write(f"{path}/{name}", "own" if name == "params" else "")
        acme.set_perms(f"{path}{leaf}", [f"n{ACME}"])
    acme.write(f"{bench.made.make_back_end('vbd', ACME, 44, 51712)}/params", b"\xff")
    bench.made.make_back_end("vbd", ACME, 45, 0)
    bench.made.domain(0).write(f"{HOME}/backend/vbd/x/51712/params", "secret")
    bench.made.domain(0).write(f"{HOME}/backend/vbd/46/junk/params", "secret")
    bench.turn()
    assert bench.attach(BETA, 50, "nothing") == "error"
    assert bench.attach(HOST, 51, "secret") == "connected"
    assert bench.attach(ACME, 52, "own") == "connected"


def test_withdrawal_while_a_request_is_done_ends_nothing_else(bench: Bench) -> None:
    bench.put(ACME, 1, "create v 4")
    while not bench.volumes.log:
        bench.turn(1)
    bench.made.withdraw(ACME)
    bench.turn()
    assert bench.made.domain(HOST).children(f"{HOME}/tenants") == [str(BETA)]
    assert bench.ask(BETA, 1, "create v 4") == "ok"


def test_a_name_that_is_too_long_for_the_device_mapper_is_refused(bench: Bench) -> None:
    assert bench.ask(ACME, 1, f"create {'v' + '-' * 63} 4").startswith(f"error {errno.EINVAL} ")
    assert bench.ask(ACME, 2, f"create {'v' * 64} 4") == "ok"
