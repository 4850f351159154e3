"""Takes away each right in turn, and runs the smallest scenario that should notice.

    ./run-tests rights [--only TEXT] [--jobs N] [--json] [--list]

A right is one allow rule: source, target, class, permission; all that xoar.privilege.rules derives from the
manifests, whether stated or implied by a link. The images are built once. For each rule a policy is compiled
without it, a host boots with that, and scenarios (scenarios.py) run, the cheapest first, until one notices:

- the host does not come up;
- a request is refused, an outcome is another one, or a step takes several times as long as with all rights;
- a shard says on Xen's console that something failed, which it does not say with all rights.

A line of FLASK in Xen's log is no notice by itself. What is noticed must go with such a line, though:
otherwise it was something else that went wrong, and the run counts for nothing. A rule that nothing notices
is a survivor: its right goes, or a scenario is missing. A few rules stay without proof (`_KEPT`), each with
its reason.

First each scenario runs with all rights, to learn its pace, and once with every rule audited, to learn
which rules Xen is asked for at all; a scenario is run for those only.

Outcomes are kept (in the cache, `rights/`), so that a run that was interrupted goes on. They depend on the
images and the scenario. They do not depend on every other rule: what was noticed with more rights is taken
to be noticed with fewer, and what survived with fewer to survive with more.

Exit code: 0 when there are no survivors, 1 when there are some, 2 when some could not be tried.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import scenarios
from scenarios import Scenario
from trial import Noticed, Trial, started

from xoar.host import apt, assembly, cache, config, state, tenants, up
from xoar.host.build import policy, xen
from xoar.host.emulator import Launch
from xoar.host.errors import HostError
from xoar.host.progress import Reporter
from xoar.host.state import Host
from xoar.privilege import flask, shardset, vectors
from xoar.privilege.rules import Origin, Rule, Rules, channel_type, port_type

HOST = "rights"
NOTICED, KEPT, SURVIVED, UNKNOWN, FAILED = "noticed", "kept", "survived", "no scenario", "not tried"
_STARTS_AGAIN = "gives back the page of a driver domain whose front end starts again in the same domain"
# What no scenario here can show, with the reason why it stays; the code behind it has unit tests
_KEPT = {
    Rule("pciback_t", "netback_t", "grant", "unmap"): _STARTS_AGAIN,
    Rule("pciback_t", "blkback_t", "grant", "unmap"): _STARTS_AGAIN,
    Rule("pciback_t", "netback_t", "resource", "remove"): (
        "drivers of some network cards take their vectors twice as they start, those of emulated ones do not"
    ),
}
_TRIES = 3  # of a run in which something went wrong that has nothing to do with the right
_ABREAST = max(1, (os.cpu_count() or 1) // 2)  # hosts with driver domains: more are too slow to judge
_GRANTED = re.compile(
    r"avc: *granted *\{ ([a-z_0-9 ]+) \}.*scontext=\w+:\w+:(\w+) tcontext=\w+:\w+:(\w+) tclass=(\w+)"
)


class Outcome(msgspec.Struct, frozen=True):
    """What came of one rule in one scenario. `allowed`: the other rules, as a name of `Store`."""

    noticed: bool
    how: str
    seconds: float
    denied: bool
    allowed: str


class Measure(msgspec.Struct, frozen=True):
    """A scenario with all rights: seconds of each step, rules that Xen was asked for."""

    paces: dict[str, float]
    asked: list[str]


class Store:
    """Outcomes on disk: a folder per images and scenario."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._rules: dict[str, frozenset[str]] = {}

    def measure(self, key: str) -> Measure | None:
        """What was measured with all rights."""
        return self._read(self._root / key / "measure.json", Measure)

    def keep_measure(self, key: str, measure: Measure) -> None:
        """Keeps it."""
        self._write(self._root / key / "measure.json", msgspec.json.encode(measure))

    def outcome(self, key: str, rule: Rule, others: frozenset[str]) -> Outcome | None:
        """An earlier outcome that holds for the rule among these other ones."""
        found = self._read(self._file(key, rule), Outcome)
        if found is None:
            return None
        then = self._allowed(found.allowed)
        return found if (others <= then if found.noticed else others >= then) else None

    def keep(self, key: str, rule: Rule, outcome: Outcome) -> None:
        """Keeps an outcome."""
        self._write(self._file(key, rule), msgspec.json.encode(outcome))

    def name_of(self, others: frozenset[str]) -> str:
        """A name for a set of rules, under which it is kept."""
        text = "\n".join(sorted(others))
        name = cache.key(text)
        if not self._rule_file(name).is_file():
            self._write(self._rule_file(name), text.encode())
        return name

    def _allowed(self, name: str) -> frozenset[str]:
        if name not in self._rules:
            self._rules[name] = frozenset(self._rule_file(name).read_text().splitlines())
        return self._rules[name]

    def _rule_file(self, name: str) -> Path:
        return self._root / "rules" / name

    def _file(self, key: str, rule: Rule) -> Path:
        return self._root / key / (re.sub(r"[^a-z0-9_]+", "-", "-".join(rule)) + ".json")

    def _read(self, file: Path, kind: type[Any]) -> Any:
        try:
            return msgspec.json.decode(file.read_bytes(), type=kind)
        except FileNotFoundError:
            return None

    def _write(self, file: Path, content: bytes) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".new")
        temporary.write_bytes(content)
        temporary.replace(file)


@dataclass
class Prepared:
    """A scenario whose host is built; `key` names all that its outcomes depend on but the policy."""

    scenario: Scenario
    configuration: config.Config
    launch: Launch
    key: str
    measure: Measure

    def with_policy(self, file: Path) -> Launch:
        """The same with another policy, which is the second module. Makes blank disks."""
        Host(HOST).stop(erase=True)
        devices = up.emulated_devices(self.configuration)
        machine = self.launch.machine
        machine = msgspec.structs.replace(machine, modules=[machine.modules[0], str(file)], devices=devices)
        return msgspec.structs.replace(self.launch, machine=machine)


class Bench:
    """Runs scenarios with policies of its own."""

    def __init__(self, show: Reporter) -> None:
        system = apt.Apt(show)
        self.shards = shardset.load_all()
        self.vectors = vectors.load(xen.build(system, show).flask)
        self.allowed, self._never = flask.judged(self.shards, self.vectors)
        self.store = Store(cache.root() / "rights")
        self._show = show
        self._large = multiprocessing.get_context("fork").Semaphore(_ABREAST)
        folder = cache.root() / "rights"
        folder.mkdir(exist_ok=True)
        os.environ["XOAR_STATE"] = str(folder / "state")

    def prepare(self, scenario: Scenario) -> Prepared:
        """Builds a scenario's host, and measures it if that is not known. Raises HostError, Noticed."""
        configuration = config.parse(scenario.configuration, Path("xoar.toml")).for_host(HOST)
        replaced = {
            name: assembly.Replacement(main, Path(__file__).parent)
            for name, main in scenario.replaced.items()
        }
        launch = up.prepare(configuration, self._show, replaced)
        for tenant in configuration.tenants.values():  # there is one at most
            # for hosts in the folders of workers, too
            os.environ[tenants.KEY_VARIABLE] = str(tenants.key_file(tenant.name, HOST))
        machine = launch.machine
        key = cache.key(
            scenario.name, machine.xen, machine.kernel, machine.modules[0], machine.xen_arguments,
            launch.qemu.version, *scenarios.FILES,
        )  # fmt: skip
        made = Prepared(scenario, configuration, launch, f"{scenario.name}-{key}", Measure({}, []))
        measure = self.store.measure(made.key)
        if measure is None:
            with self._show.step(f"scenario {scenario.name} with all rights"):
                measure = self._measured(made)
            self.store.keep_measure(made.key, measure)
        made.measure = measure
        return made

    def _measured(self, made: Prepared) -> Measure:
        whole = self._compiled(self.allowed)
        with self._host(made, whole) as trial:
            made.scenario.run(trial)
            paces = dict(trial.took)
        drivers = {f"{manifest.name}_t" for manifest in self.shards.drivers}
        audited = [rule for rule in self.allowed if not asked_often(rule, drivers)]
        lines = [str(rule).replace("allow", "auditallow", 1) for rule in audited]
        made.measure = Measure(paces, [])
        with self._host(made, self._compiled(self.allowed, lines)) as trial:
            made.scenario.run(trial)
            text = trial.log()
        asked = {
            Rule(source, target, security_class, permission)
            for permissions, source, target, security_class in _GRANTED.findall(text)
            for permission in permissions.split()
        }
        always = set(self.allowed) - set(audited)
        return Measure(paces, sorted(map(str, asked | always)))

    def attempt(self, made: Prepared, rule: Rule) -> Outcome:
        """The outcome of the scenario without a rule. Raises HostError if it could not be tried."""
        others = {other: origins for other, origins in self.allowed.items() if other != rule}
        binary = self._compiled(others)
        name = self.store.name_of(frozenset(map(str, others)))
        for _ in range(_TRIES):
            how = ""
            with self._turn(made), self._host(made, binary, rule) as trial:
                since = time.monotonic()
                try:
                    made.scenario.run(trial)
                except Noticed as noticed:
                    how = str(noticed)
                denied = trial.denied()
            seconds = round(time.monotonic() - since, 1)
            if not how or denied:
                return Outcome(bool(how), how, seconds, denied, name)
            self._show.say(f"{rule}: {how}, but it was never denied; once more")
        raise HostError(f"{rule}: scenario {made.scenario.name} fails for another reason: {how}")

    def _turn(self, made: Prepared) -> contextlib.AbstractContextManager[Any]:
        """In which a host of this scenario may run, for as long as it lasts."""
        return self._large if "pciback" in made.scenario.parties else contextlib.nullcontext()

    def _compiled(self, allowed: Rules, more: list[str] | None = None) -> Path:
        lines = [*flask.allow_lines(allowed), *(more or [])]
        text = flask.written(self.shards, self.vectors, lines, self._never)
        file = state.root().with_suffix(".policy")
        file.write_bytes(policy.compile(text))
        return file

    @contextlib.contextmanager
    def _host(self, made: Prepared, binary: Path, missing: Rule | None = None) -> Iterator[Trial]:
        launch = made.with_policy(binary)
        with started(HOST, launch, made.measure.paces, made.scenario.usual, missing) as trial:
            yield trial


def asked_often(rule: Rule, drivers: set[str]) -> bool:
    """Whether Xen asks for a right so often that a line for each time would be all that a host does.

    `drivers` are the types of driver domains, which keep page tables and map pages of guests. What takes Xen
    long it does in parts, and asks anew for each: the more it prints, the more parts there are.
    """
    if rule.security_class == "mmu":
        pages = ("adjust", "map_read", "map_write", "mmuext_op", "physmap", "pinpage")
        return rule.source in drivers or rule.permission in pages
    if rule.security_class == "grant":
        return rule.source in drivers or rule.permission == "copy"
    return (rule.security_class, rule.permission) in (("event", "send"), ("domain", "destroy"))


def parties(rule: Rule, shards: shardset.ShardSet) -> set[str]:
    """The manifests whose domains a rule is about."""
    found = set()
    for name in shards.manifests:
        own = {f"{name}_t", f"{name}_t_self", channel_type(name), port_type(name)}
        if own & {rule.source, rule.target}:
            found.add(name)
    return found


def fitting(rule: Rule, shards: shardset.ShardSet) -> list[Scenario]:
    """The scenarios whose hosts have all domains that a rule is about, the cheapest first."""
    needed = parties(rule, shards)
    return [scenario for scenario in scenarios.ALL if needed <= set(scenario.parties)]


@dataclass(frozen=True)
class Result:
    """What came of a rule; `where` are the scenarios that were run for it."""

    rule: Rule
    origins: list[Origin]
    verdict: str
    where: list[str]
    how: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rule": str(self.rule),
            "origins": [str(origin) for origin in self.origins],
            "verdict": self.verdict,
            "scenarios": self.where,
            "how": self.how,
            "seconds": self.seconds,
        }


def asking(bench: Bench, hosts: Mapping[str, Prepared], rule: Rule) -> list[Scenario]:
    """The fitting scenarios in which Xen is asked for a rule, the cheapest first."""
    return [one for one in fitting(rule, bench.shards) if str(rule) in hosts[one.name].measure.asked]


def judge(bench: Bench, hosts: Mapping[str, Prepared], rule: Rule) -> Result:
    """Tries a rule in the scenarios that can notice, until one does or cannot be run."""
    origins = bench.allowed[rule]
    if not fitting(rule, bench.shards):
        return Result(rule, origins, UNKNOWN, [], "no scenario has domains of all these kinds", 0.0)
    others = frozenset(str(other) for other in bench.allowed if other != rule)
    where, seconds, denied = [], 0.0, []
    for scenario in asking(bench, hosts, rule):
        made = hosts[scenario.name]
        outcome = bench.store.outcome(made.key, rule, others)
        if outcome is None:
            try:
                outcome = bench.attempt(made, rule)
            except HostError as error:
                return Result(rule, origins, FAILED, [*where, scenario.name], str(error), seconds)
            bench.store.keep(made.key, rule, outcome)
        where.append(scenario.name)
        seconds += outcome.seconds
        if outcome.noticed:
            return Result(rule, origins, NOTICED, where, outcome.how, seconds)
        if outcome.denied:
            denied.append(scenario.name)
    if rule in _KEPT:
        return Result(rule, origins, KEPT, where, _KEPT[rule], seconds)
    how = f"denied in {', '.join(denied)}" if denied else "Xen is never asked for it"
    return Result(rule, origins, SURVIVED, where, how, seconds)


class Worker:
    """A process that tries rules, forked when all is built; its hosts live in a folder of their own."""

    _bench: Bench
    _hosts: Mapping[str, Prepared]

    @classmethod
    def begin(cls, bench: Bench, hosts: Mapping[str, Prepared]) -> None:
        """Called once in each process."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process ends the others
        number = multiprocessing.current_process().name.rpartition("-")[2]
        os.environ["XOAR_STATE"] += f"-{number}"
        cls._bench, cls._hosts = bench, hosts

    @classmethod
    def judge(cls, rule: Rule) -> Result:
        """What comes of a rule."""
        return judge(cls._bench, cls._hosts, rule)


def main() -> int:
    """Runs it all; the exit code."""
    options = _options()
    for number in (signal.SIGTERM, signal.SIGINT):  # so that the hosts that run are ended, too
        signal.signal(number, lambda *_: sys.exit(2))
    show = Reporter()
    try:
        bench = Bench(show)
        rules = [rule for rule in bench.allowed if options.only in str(rule)]
        if options.list:
            for rule in rules:
                print(f"{', '.join(s.name for s in fitting(rule, bench.shards)) or '-'}: {rule}")
            return 0
        hosts = {scenario.name: bench.prepare(scenario) for scenario in scenarios.ALL}
    except Noticed as noticed:
        print(f"xoar: with all rights: {noticed}", file=sys.stderr)
        return 2
    except HostError as error:
        print(f"xoar: {error}", file=sys.stderr)
        return 2
    # those of cheap scenarios first: if the run is interrupted, most is known
    order = sorted(rules, key=lambda rule: [scenarios.ALL.index(one) for one in asking(bench, hosts, rule)])
    results = []
    forked = multiprocessing.get_context("fork")
    with forked.Pool(options.jobs, Worker.begin, (bench, hosts)) as workers:
        for result in workers.imap_unordered(Worker.judge, order):
            results.append(result)
            progress = f"[{len(results):3}/{len(rules)}] {result.verdict:9} {result.seconds:5.1f} s"
            where = ",".join(result.where)
            print(f"{progress}  {result.rule}  {where}: {result.how}", file=sys.stderr, flush=True)
    results.sort(key=lambda result: rules.index(result.rule))
    _report(results, options.json)
    verdicts = {result.verdict for result in results}
    return 2 if FAILED in verdicts else 1 if verdicts & {SURVIVED, UNKNOWN} else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run-tests rights", description="Takes away each right in turn.")
    parser.add_argument("--only", default="", metavar="TEXT", help="rules that contain this text")
    parser.add_argument(
        "--jobs",
        type=int,
        default=_ABREAST,
        metavar="N",
        help="hosts that run at the same time; without it one for two processors, and of those with driver"
        " domains never more than that",
    )
    parser.add_argument("--json", action="store_true", help="all outcomes, as JSON")
    parser.add_argument("--list", action="store_true", help="which scenarios fit which rule; runs nothing")
    return parser.parse_args()


def _report(results: list[Result], as_json: bool) -> None:
    if as_json:
        print(json.dumps([result.as_dict() for result in results], indent=1))
        return
    verdicts = (NOTICED, KEPT, SURVIVED, UNKNOWN, FAILED)
    counts = {verdict: [r for r in results if r.verdict == verdict] for verdict in verdicts}
    for verdict in verdicts[1:]:
        for result in counts[verdict]:
            print(f"{verdict}: {result.rule} ({result.how})")
            for origin in result.origins:
                print(f"    {origin}")
    print(", ".join(f"{len(found)} {verdict}" for verdict, found in counts.items()))


if __name__ == "__main__":
    sys.exit(main())
