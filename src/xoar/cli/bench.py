"""`xoar bench`: measures a Xoar host against stock Debian Xen, or against itself, in the same emulator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

from xoar.cli import options

if TYPE_CHECKING:
    from xoar.host.bench.report import Report, Row
    from xoar.host.progress import Reporter

app = typer.Typer(no_args_is_help=True, help="Measure against stock Debian Xen with a domain 0 and xl.")


@app.callback()
def bench() -> None:
    """Measure against stock Debian Xen with a domain 0 and xl, side by side in the same emulator."""


@app.command()
def boot(
    runs: Annotated[int, typer.Option(min=1, help="Boots of each host, in turn.")] = 3,
    json: options.Json = False,
) -> None:
    """Time from the emulator's start to the first guest's login.

    Examples:

    - `xoar bench boot`
    - `xoar bench boot --runs 5 --json`
    """
    from xoar.host.bench import boot, pair

    _compare(pair.prepare, boot.run, runs, json)


@app.command()
def create(
    runs: Annotated[int, typer.Option(min=1, help="Guests created in each host.")] = 7,
    json: options.Json = False,
) -> None:
    """Time of creating a guest in a booted host.

    Examples:

    - `xoar bench create`
    - `xoar bench create --runs 21 --json`
    """
    from xoar.host.bench import create, pair

    _compare(pair.prepare, create.run, runs, json)


@app.command()
def devices(
    rounds: Annotated[int, typer.Option(min=1, help="Boots of each host, in turn.")] = 1,
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write devices.json, devices.md and devices.svg there."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Network, disk, both at once, CPU and boot of a Debian guest with its own disk.

    Examples:

    - `xoar bench devices`
    - `xoar bench devices --rounds 3 --save docs/bench`
    """
    from xoar.host.bench import devices

    made = _compare(devices.prepare, devices.run, rounds, json)
    _save(made, save, "devices", rounds)


@app.command()
def policy(
    rounds: Annotated[int, typer.Option(min=1, help="Boots with each policy, in turn.")] = 3,
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write policy.json, policy.md and policy.svg there."),
    ] = None,
    json: options.Json = False,
) -> None:
    """What the policy costs: guest creation and network, against a policy that allows everything.

    Examples:

    - `xoar bench policy`
    - `xoar bench policy --rounds 5 --save docs/bench`
    """
    from xoar.host.bench import policy

    made = _compare(policy.prepare, policy.run, rounds, json, policy.SIDES)
    _save(made, save, "policy", rounds)


@app.command()
def microreboot(
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds of 20 rollbacks and one domain built anew.")
    ] = 10,
    json: options.Json = False,
) -> None:
    """How long it takes to roll a shard back, by parts, against building a domain anew in the same host.

    Examples:

    - `xoar bench microreboot`
    - `xoar bench microreboot --rounds 50 --json`
    """
    from xoar.cli import output
    from xoar.host.bench import microreboot, report
    from xoar.host.progress import Reporter

    machine = microreboot.machine()
    result = microreboot.run(rounds, Reporter())
    if json:
        output.print_json({**result.as_dict(), "machine": machine})
        return
    rows = [(name, report.spread(values, "ms")) for name, values in result.rows()]
    output.print_table(("", "median (range)"), rows, right=("median (range)",))
    print()
    output.print_facts([*result.facts().items(), *machine.items()])
    print("\nThe figures are those of this machine and this run; the ratios are what the run shows.")


@app.command()
def rollbacks(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of two boots and 7 guests in each host.")] = 3,
    json: options.Json = False,
) -> None:
    """What rollbacks cost: booting to a guest's login, and guest creation, against the same host without.

    Examples:

    - `xoar bench rollbacks`
    - `xoar bench rollbacks --rounds 5 --json`
    """
    from xoar.host.bench import rollbacks

    _compare(rollbacks.prepare, rollbacks.run, rounds, json, rollbacks.SIDES)


@app.command()
def xenstore(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of 400 requests in each host.")] = 5,
    json: options.Json = False,
) -> None:
    """XenStore's requests per second, with rollbacks and without, against Xen's xenstored and oxenstored.

    Examples:

    - `xoar bench xenstore`
    - `xoar bench xenstore --rounds 10 --json`
    """
    from xoar.host.bench import xenstore

    _compare(xenstore.prepare, xenstore.run, rounds, json)


class _Hosts(Protocol):
    """Hosts that are built, ready to be measured; `facts` says in words what they are."""

    def facts(self) -> dict[str, str]: ...


_Built = TypeVar("_Built", bound=_Hosts)


def _compare(
    prepare: Callable[[Reporter], _Built],
    run: Callable[[_Built, int, Reporter], list[Row]],
    rounds: int,
    json: bool,
    sides: tuple[str, str] | None = None,
) -> Report:
    """Builds, measures and prints; `sides` are those of the report if they are not Xoar and stock."""
    from xoar.host.bench import report
    from xoar.host.progress import Reporter

    show = Reporter()
    built = prepare(show)
    machine = report.this_machine() | built.facts()
    made = report.Report(run(built, rounds, show), machine, sides or report.SIDES)
    _print(made, json)
    return made


def _save(made: Report, folder: Path | None, name: str, rounds: int) -> None:
    from xoar.host.bench import saved

    if folder is not None:
        saved.save(made, folder, name, f"xoar bench {name} --rounds {rounds}")


def _print(made: Report, json: bool) -> None:
    from xoar.cli import output
    from xoar.host.bench import saved

    if json:
        output.print_json(made.as_dict())
        return
    ours, other = made.sides
    columns = ("median (range)", ours, other, f"{ours} / {other}", "times as good")
    rows = [saved.cells(row) for row in made.rows]
    output.print_table(columns, rows, right=columns[1:])
    print()
    output.print_facts(made.machine.items())
    print("\nThe figures are those of this machine and this run; the ratios are what the run shows.")
