"""The agent's loop: XenStore and the kernel's interfaces in, interfaces and reports out.

Whatever changes, all is planned anew and made so: there is one way only, which an agent takes, too, that is
started again in a domain that works.
"""

import os
import select
import signal
import time
from typing import NamedTuple

from xoar.netback import arp, dhcp, lease, names
from xoar.netback.declared import vif_name
from xoar.netback.errors import ProgramFailed
from xoar.netback.kernel import LinuxKernel
from xoar.netback.layout import NO_NIC, Layout, Nic, is_physical, plan
from xoar.netback.parties import Party
from xoar.netback.programs import Child, Rules, put
from xoar.netback.reconcile import Outcome, UplinkAddress, converge
from xoar.netback.records import Records
from xoar.netback.reports import Reports, report_vif
from xoar.netback.ruleset import render
from xoar.xenstore.errors import Refused
from xoar.xenstore.linux import Connection

_TURN = 2.0  # seconds at most between two looks at children and ARP
_RETRY = 5.0  # seconds until what failed is tried again
_NIC_GRACE = 60.0  # seconds that a driver may take to find its card

_SYSCTLS = {
    # this domain has no IPv6 of its own
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    # an interface answers for its own address alone
    "net/ipv4/conf/all/arp_ignore": "1",
    "net/ipv4/ip_forward": "1",
    # bridged frames are the bridge family's business, not the IP family's
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
    "net/bridge/bridge-nf-call-arptables": "0",
}


class Settings(NamedTuple):
    """`folder`: for the children's files; `user`: whom dnsmasq runs as; `nic`: its name, "": look for it."""

    folder: str = "/run/netback"
    user: str = "nobody"
    nic: str = ""


class Agent:
    """Serves until XenStore's connection ends."""

    def __init__(self, store: Connection, settings: Settings) -> None:
        os.makedirs(settings.folder, exist_ok=True)
        # children inherit this: dnsmasq is not to die of a SIGHUP before it has its handler
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._store = store
        self._settings = settings
        self._kernel = LinuxKernel()
        self._listeners = (
            dhcp.Listener(),
            arp.Listener(),
        )  # what is used counts more than what was asked for
        self._rules = Rules()
        self._dnsmasq = Child("dnsmasq", settings.folder)
        self._udhcpc = Child("udhcpc", settings.folder, listen=True)
        self._records = Records(store)
        self._reports: dict[str, Reports] = {}
        self._layout = plan({}, {}, None, None)
        self._outcome = Outcome(set(), {}, {})
        self._failure = ""
        self._lease: lease.Lease | None = None
        self._leased_by = 0
        self._nic_deadline = time.monotonic() + _NIC_GRACE
        self._next_act: float | None = time.monotonic()
        self._due, self._earliest = False, 0.0  # whether to act, and not before when
        self._addresses = {
            place: address
            for party in self._records.parties()
            for place, address in self._reports_to(party).addresses().items()
        }

    def run(self) -> None:
        """Serves. Raises ProtocolError or OSError if XenStore can't be reached any more."""
        while True:
            try:
                self._turn()
            except Refused as error:
                self._next_act = time.monotonic() + _RETRY
                print(f"netback: XenStore refuses a request: {error.name}", flush=True)
            self._wait()

    def _turn(self) -> None:
        changes = [
            self._records.take_changes(),
            self._kernel.take_changes(),
            self._take_lease(),
            self._dnsmasq.check(),
            self._udhcpc.check(),
            self._next_act is not None and time.monotonic() >= self._next_act,
        ]
        self._due = self._due or any(changes)
        if self._due and time.monotonic() >= self._earliest:
            self._due = False
            start = time.monotonic()
            self._act()
            # who changes what it declares all the time takes half of the time at most
            self._earliest = 2 * time.monotonic() - start
        self._hear()
        if not self._due:  # else what is declared is not yet so
            self._report()

    def _wait(self) -> None:
        poll = select.poll()
        for fd in (self._store.fileno(), self._kernel.fileno(), self._udhcpc.fileno()):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        pause = max(0.0, self._earliest - time.monotonic()) if self._due else _TURN
        poll.poll(0 if self._store.has_event() and not self._due else int(pause * 1000 + 0.999))

    def _act(self) -> None:
        """Plans, and makes it so."""
        self._next_act = None
        try:
            leased = self._lease.address.network if self._lease else None
            layout = plan(self._records.networks, self._records.vifs, self._nic(), leased)
            self._outcome = converge(self._kernel, layout, lambda: self._load(layout), self._uplink_address())
            self._layout = layout
            self._serve_names()
            self._follow_uplink()
            self._failure = ""
        except (OSError, ProgramFailed) as error:
            self._failure = str(error)
            self._next_act = time.monotonic() + _RETRY
            print(f"netback: {error}", flush=True)

    def _nic(self) -> Nic | None:
        """The physical interface: the first one, should there be several."""
        wanted = self._settings.nic
        for name, interface in sorted(self._kernel.interfaces().items()):
            device = os.path.realpath(f"/sys/class/net/{name}/device")
            if name == wanted if wanted else is_physical(device):
                return Nic(name, interface.mac)
        return None

    def _load(self, layout: Layout) -> None:
        self._rules.load(render(layout))
        for name, value in _SYSCTLS.items():
            if os.path.exists(f"/proc/sys/{name}"):
                put(f"/proc/sys/{name}", value)

    def _serve_names(self) -> None:
        """DHCP and DNS for the networks behind NAT."""
        if not self._layout.nats:
            self._dnsmasq.want(())
            return
        folder = self._settings.folder
        servers = self._lease.servers if self._lease else ()
        text = names.configuration(self._layout, servers, folder, self._settings.user)
        put(f"{folder}/dnsmasq.conf", text)
        if put(f"{folder}/hosts", names.hosts(self._layout)):
            self._dnsmasq.hang_up()
        self._dnsmasq.want(("dnsmasq", "--keep-in-foreground", f"--conf-file={folder}/dnsmasq.conf"), text)

    def _follow_uplink(self) -> None:
        """Asks for the uplink's address, if there is an uplink."""
        if not self._layout.uplink:
            self._udhcpc.want(())
            self._lease, self._leased_by = None, 0
            return
        script = f"{self._settings.folder}/lease.sh"
        put(script, lease.SCRIPT)
        os.chmod(script, 0o755)
        self._udhcpc.want(lease.arguments(self._layout.uplink, script))

    def _take_lease(self) -> bool:
        before = self._lease
        for line in self._udhcpc.lines():
            told = lease.parse(line)
            if told is not None:
                self._lease, self._leased_by = told, self._udhcpc.pid
            elif lease.is_lost(line) and self._leased_by == self._udhcpc.pid:
                self._lease = None
        return self._lease != before

    def _uplink_address(self) -> UplinkAddress | None:
        if self._lease is not None:
            return UplinkAddress(str(self._lease.address), str(self._lease.gateway or ""))
        # before the first lease, what an earlier agent's DHCP client has got is as good as any
        return UplinkAddress("", "") if self._leased_by else None

    def _hear(self) -> None:
        """Notes which addresses guests use."""
        vifs = {(port.bridge.name, port.vif.mac): port.vif.place for port in self._layout.ports.values()}
        heard = [sighting for listener in self._listeners for sighting in listener.take()]
        for sighting in heard:
            place = vifs.get((sighting.interface, sighting.mac))
            if place is not None:
                self._addresses[place] = sighting.address

    def _report(self) -> None:
        faults = self._records.vif_faults | self._layout.vif_faults | self._outcome.vif_faults
        for place, said in list(self._records.statuses.items()):
            plugged = vif_name(place) in self._outcome.plugged
            status = ("error", faults[place]) if place in faults else ("connected" if plugged else "", "")
            if status != said:
                self._records.statuses[place] = status
                try:
                    report_vif(self._store, place, said, status)
                except Refused as error:  # whose vif it is may hide its nodes, or change them all the time
                    print(f"netback: {vif_name(place)} can't be answered: {error.name}", flush=True)
        for place in [place for place in self._addresses if place not in self._records.owners]:
            del self._addresses[place]
        networks, (state, note) = self._network_states(), self._state()
        for party in self._records.parties():
            nodes = {f"networks/{name}": text for name, text in networks.items() if party.may_use(name)}
            for place, address in self._addresses.items():
                if self._records.owners[place] == party:
                    nodes[f"addresses/{place[0]}/{place[1]}"] = address
            nodes |= {"note": note} if note else {}
            try:
                self._reports_to(party).say({**nodes, "state": state})
            except Refused as error:  # a tenant that is withdrawn loses its nodes at any moment
                print(f"netback: {party.tenant or 'host'} can't be told: {error.name}", flush=True)

    def _reports_to(self, party: Party) -> Reports:
        """What is said to a party."""
        found = self._reports.get(party.base)
        if found is None or (party.base in self._records.remade and found.wiped):
            found = self._reports[party.base] = Reports(self._store, party.base)
        self._records.remade.discard(party.base)
        return found

    def _network_states(self) -> dict[str, str]:
        faults = self._records.network_faults | self._layout.network_faults | self._outcome.network_faults
        for bridge in self._layout.nats:
            fault = self._dnsmasq.fault or self._udhcpc.fault
            if not fault and self._lease is None:
                fault = f"no DHCP server has given {self._layout.uplink} an address yet"
            if fault:
                faults.setdefault(bridge.network.name, fault)
        known = [*self._records.networks, *self._records.network_faults]
        return {name: f"failed {faults[name]}" if name in faults else "up" for name in sorted(known)}

    def _state(self) -> tuple[str, str]:
        if self._failure:
            return "failed", self._failure
        if self._layout.nic:
            self._nic_deadline = 0
            return "ready", ""
        if time.monotonic() < self._nic_deadline:
            return "starting", ""
        return "failed", NO_NIC
