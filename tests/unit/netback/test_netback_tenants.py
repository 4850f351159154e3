"""What tenants may declare, and what they hear: each with its own rights in XenStore."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tenant_store import DRIVER, HOME, HOST, Store, store

from xoar.netback.declared import VIF_NODES, Place
from xoar.netback.layout import Nic, plan
from xoar.netback.parties import HOST as HOSTS
from xoar.netback.parties import NOBODY
from xoar.netback.records import Records
from xoar.netback.reports import Reports, report_vif
from xoar.xenstore.errors import Refused

ACME, BETA = 32512, 32513


class Bench:
    """The agent's records, of a host with networks lan and dmz; lan is delegated to ACME, dmz to BETA."""

    def __init__(self, made: Store) -> None:
        self.made = made
        self.connection = made.connection(DRIVER)
        self.records = Records(self.connection)
        host = made.domain(HOST)
        for number, name in enumerate(("dmz", "lan")):
            host.write(f"{HOME}/networks/{name}/vlan", str(number))
            host.write(f"{HOME}/networks/{name}/mode", "bridge")
        made.delegate(ACME, "acme", networks__lan="lan:net0:bridge:1:-")
        made.delegate(BETA, "beta", networks__dmz="")
        self.take()

    def take(self) -> bool:
        """Whether anything was to be planned anew, after all that XenStore has to tell."""
        changed = False
        while (event := self.connection.next_event(0.05)) is not None:
            self.connection._events.insert(0, event)
            changed = self.records.take_changes() or changed
        return changed

    def vif(self, who: int, guest: int, network: str, **nodes: str) -> str:
        """Declares one, and waits until it was taken; its path."""
        path = self.made.make_back_end("vif", who, guest, 0)
        values = {
            "mac": f"00:16:3e:00:00:{guest:02x}",
            "network": network,
            "address": "",
            **nodes,
            "state": "1",
        }
        for name, value in values.items():
            self.made.domain(who).write(f"{path}/{name}", value)
        self.take()
        return path

    def fault(self, guest: int) -> str:
        """What is wrong with a guest's vif."""
        place: Place = (guest, 0)
        layout = plan(self.records.networks, self.records.vifs, Nic("nic", "52:54:00:00:00:01"), None)
        assert (place in layout.vif_faults) + (place in self.records.vif_faults) + (
            f"vif{guest}.0" in layout.ports
        ) == 1
        return (self.records.vif_faults | layout.vif_faults).get(place, "")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with store(tmp_path) as made:
        yield Bench(made)


def test_the_hosts_guests_use_every_network_and_a_tenants_what_is_delegated(bench: Bench) -> None:
    for guest, who, network, fault in (
        (40, HOST, "lan", ""),
        (41, HOST, "dmz", ""),
        (42, ACME, "lan", ""),
        (43, ACME, "dmz", "network dmz is not delegated to acme"),
        (44, BETA, "dmz", ""),
        (45, BETA, "lan", "network lan is not delegated to beta"),
        (46, 32514, "lan", NOBODY),
        (47, ACME, "nowhere", "network nowhere is not delegated to acme"),
    ):
        bench.vif(who, guest, network)
        assert bench.fault(guest) == fault


def test_who_owns_the_node_counts_and_not_what_is_written_there(bench: Bench) -> None:
    path = bench.vif(ACME, 40, "dmz", owner=str(HOST), tenant="beta")
    with pytest.raises(Refused, match="EPERM"):
        bench.made.domain(ACME).set_perms(path, [f"n{HOST}", f"b{DRIVER}"])
    assert bench.fault(40) == "network dmz is not delegated to acme"


def test_a_network_that_is_withdrawn_and_comes_back(bench: Bench) -> None:
    host, node = bench.made.domain(HOST), f"{HOME}/tenants/{ACME}/networks/lan"
    bench.vif(ACME, 40, "lan")
    bench.vif(HOST, 41, "lan")
    host.rm(node)
    assert bench.take()
    assert bench.fault(40) == "network lan is not delegated to acme"
    assert bench.fault(41) == ""
    host.write(node, "")
    assert bench.take()
    assert bench.fault(40) == ""


def test_a_tenant_that_is_withdrawn_and_comes_back(bench: Bench) -> None:
    bench.vif(ACME, 40, "lan")
    bench.made.withdraw(ACME)
    assert bench.take()
    assert bench.fault(40) == NOBODY
    bench.made.delegate(ACME, "acme", networks__lan="")
    assert bench.take()
    assert bench.fault(40) == ""


@pytest.mark.parametrize("name", ["", "x" * 17, "UP", "a_b", "\xff"])
def test_a_tenant_without_a_plain_name_is_none(bench: Bench, name: str) -> None:
    bench.made.withdraw(ACME)
    bench.made.delegate(ACME, name, networks__lan="")
    bench.vif(ACME, 40, "lan")
    assert bench.fault(40) == NOBODY


def test_an_agent_that_is_started_again_judges_alike(bench: Bench) -> None:
    bench.vif(ACME, 40, "lan")
    bench.vif(BETA, 41, "lan")
    bench.records = Records(bench.made.connection(DRIVER))
    assert (bench.fault(40), bench.fault(41)) == ("", "network lan is not delegated to beta")


def test_nobody_takes_an_address_that_another_has_already(bench: Bench) -> None:
    bench.vif(HOST, 50, "lan", address="192.0.2.5")
    bench.vif(ACME, 40, "lan", mac="00:16:3e:00:00:32")
    bench.vif(ACME, 41, "lan", address="192.0.2.5")
    assert bench.fault(50) == ""
    assert "MAC address" in bench.fault(40) and "has the address" in bench.fault(41)
    bench.made.domain(HOST).write(f"{HOME}/backend/vif/50/0/state", "4")
    bench.take()
    assert bench.fault(50) == ""


def test_what_changes_nothing_makes_no_work(bench: Bench) -> None:
    path = bench.vif(ACME, 40, "lan")
    for node in ("state", "hotplug-status", "junk", "network/x"):
        bench.made.domain(ACME).write(f"{path}/{node}", "4")
        assert not bench.take()
    assert bench.records.statuses[(40, 0)] == ("4", "")
    bench.made.domain(ACME).write(f"{path}/mac", "00:16:3e:00:00:99")
    assert bench.take()


VIF = f"{HOME}/backend/vif/40/0"
CHANGES = st.one_of(
    st.tuples(
        st.just("write"),
        st.sampled_from((*VIF_NODES, "state", "hotplug-status", "hotplug-error", "rate")),
        st.sampled_from(("", "4", "lan", "dmz", "00:16:3e:00:00:28", "192.0.2.5")),
    ),
    st.tuples(st.just("rm"), st.sampled_from(("", *VIF_NODES, "state", "hotplug-status"))),
    st.tuples(st.just("hide"), st.sampled_from(("", "mac", "state", "network"))),
    st.tuples(st.just("show"), st.sampled_from(("", "mac", "state", "network"))),
    st.tuples(st.just("make"), st.sampled_from((HOST, ACME, BETA))),
    st.tuples(st.just("withdraw")),
    st.tuples(st.just("delegate")),
)


@settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(CHANGES, min_size=5, max_size=10))
def test_reading_what_has_changed_is_as_good_as_reading_everything(
    tmp_path: Path, changes: list[tuple[str, str | int]]
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder, store(Path(folder)) as made:
        bench = Bench(made)
        bench.vif(ACME, 40, "lan")
        for change, *words in changes:
            with contextlib.suppress(Refused):
                _make(bench, change, *words)
            bench.take()
            fresh = Records(made.connection(DRIVER))
            for name in ("networks", "vifs", "vif_faults", "statuses", "owners", "tenants"):
                assert getattr(bench.records, name) == getattr(fresh, name), name


def _make(bench: Bench, change: str, *words: str | int) -> None:
    acme = bench.made.domain(ACME)
    path = f"{VIF}/{words[0]}".rstrip("/") if words else ""
    if change == "write":
        acme.write(path, str(words[1]))
    elif change == "rm":
        acme.rm(path)
    elif change == "hide":
        acme.set_perms(path, [f"n{ACME}"])
    elif change == "show":
        acme.set_perms(path, [f"n{ACME}", f"b{DRIVER}"])
    elif change == "make":
        bench.made.make_back_end("vif", int(words[0]), 40, 0)
    elif change == "withdraw":
        bench.made.withdraw(ACME)
    else:
        bench.made.delegate(ACME, "acme", networks__lan="")


def test_a_change_is_asked_for_and_nothing_else(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.vif(ACME, 40, "lan")
    asked: list[bytes] = []
    request = bench.connection.request

    def counted(kind: int, payload: bytes, transaction: int = 0) -> int:
        asked.append(payload)
        return request(kind, payload, transaction)

    monkeypatch.setattr(bench.connection, "request", counted)
    for node in ("state", "hotplug-status", "feature-sg"):
        bench.made.domain(ACME).write(f"{path}/{node}", "4")
        bench.take()
    assert asked == [b"backend/vif/40/0/state\0", b"backend/vif/40/0/hotplug-status\0"]


def test_rubbish_and_hidden_nodes_are_one_vifs_own_fault(bench: Bench) -> None:
    acme = bench.made.domain(ACME)
    for guest, leaf in ((40, ""), (41, "/state"), (42, "/network"), (43, "/mac")):
        path = bench.vif(ACME, guest, "lan")
        acme.set_perms(f"{path}{leaf}", [f"n{ACME}"])
        acme.write(f"{path}/mac", b"\xff\0\n")
    acme.write(f"{bench.vif(ACME, 44, 'lan')}/network", "l" * 1500)
    bench.vif(ACME, 45, "../../networks/dmz")
    acme.write(f"{HOME}/tenants/{ACME}/requests/1", "create v 4")
    bench.vif(BETA, 50, "dmz")
    assert not bench.records.vifs.keys() - {(41, 0), (50, 0)}
    assert bench.fault(50) == ""
    with pytest.raises(Refused, match="EACCES"):
        report_vif(bench.connection, (40, 0), ("", ""), ("connected", ""))
    report_vif(bench.connection, (50, 0), ("", ""), ("connected", ""))


def test_each_party_is_told_its_own(bench: Bench) -> None:
    for party in bench.records.parties():
        Reports(bench.connection, party.base).say(
            {"state": "ready", f"networks/{party.tenant or 'all'}": "up"}
        )
    service = f"{HOME}/tenants/{ACME}/service"
    assert bench.made.domain(ACME).children(service) == ["networks", "state"]
    assert bench.made.domain(ACME).children(f"{service}/networks") == ["acme"]
    assert bench.made.domain(HOST).children(f"{HOME}/service/networks") == ["all"]
    with pytest.raises(Refused, match="EACCES"):
        bench.made.domain(BETA).read(f"{service}/state")


def test_an_address_that_was_told_is_known_to_the_next_agent(bench: Bench) -> None:
    base = f"tenants/{ACME}/"
    Reports(bench.connection, base).say({"addresses/40/0": "192.0.2.5", "state": "ready"})
    assert Reports(bench.connection, base).addresses() == {(40, 0): "192.0.2.5"}
    assert Reports(bench.connection, HOSTS.base).addresses() == {}


def test_a_toolstack_that_is_built_anew_changes_nothing_for_guests_and_is_told_all_again(
    bench: Bench,
) -> None:
    reports = Reports(bench.connection, f"tenants/{ACME}/")
    reports.say({"state": "ready"})
    for _ in bench.made.build_anew(ACME, "acme"):
        assert not bench.take(), "there is nothing to be planned anew"
        bench.records.remade.clear()
    assert not bench.take()
    assert bench.records.remade == {f"tenants/{ACME}/"} and reports.wiped


def test_what_was_told_is_missed_when_the_nodes_are_made_anew(bench: Bench) -> None:
    reports = Reports(bench.connection, f"tenants/{ACME}/")
    reports.say({"state": "ready"})
    assert not reports.wiped
    bench.records.remade.clear()
    bench.made.withdraw(ACME)
    with pytest.raises(Refused):
        reports.say({"state": "failed"})
    bench.made.delegate(ACME, "acme", networks__lan="")
    bench.take()
    assert bench.records.remade == {f"tenants/{ACME}/"}
    assert reports.wiped
