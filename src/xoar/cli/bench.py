"""`xoar bench`: measures a Xoar host against stock Debian Xen, or against itself, in the same emulator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xoar.cli import options

if TYPE_CHECKING:
    from xoar.host.bench.pair import Pair
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
    from xoar.host.bench import boot

    _report(boot.run, runs, json)


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
    from xoar.host.bench import create

    _report(create.run, runs, json)


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
    from xoar.host.bench import devices, report, saved
    from xoar.host.progress import Reporter

    show = Reporter()
    both = devices.prepare(show)
    machine = report.this_machine() | both.facts()
    made = report.Report(devices.run(both, rounds, show), machine)
    _print(made, json)
    if save is not None:
        saved.save(made, save, "devices", f"xoar bench devices --rounds {rounds}")


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
    from xoar.host.bench import policy, report, saved
    from xoar.host.progress import Reporter

    show = Reporter()
    prepared = policy.prepare(show)
    machine = report.this_machine() | prepared.facts()
    made = report.Report(policy.run(prepared, rounds, show), machine, policy.SIDES)
    _print(made, json)
    if save is not None:
        saved.save(made, save, "policy", f"xoar bench policy --rounds {rounds}")


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
    from xoar.host.bench import report, rollbacks
    from xoar.host.progress import Reporter

    show = Reporter()
    prepared = rollbacks.prepare(show)
    machine = report.this_machine() | prepared.facts()
    _print(report.Report(rollbacks.run(prepared, rounds, show), machine, rollbacks.SIDES), json)


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
    from xoar.host.bench import report, xenstore
    from xoar.host.progress import Reporter

    show = Reporter()
    prepared = xenstore.prepare(show)
    machine = report.this_machine() | prepared.facts()
    _print(report.Report(xenstore.run(prepared, rounds, show), machine), json)


def _report(measure: Callable[[Pair, int, Reporter], list[Row]], runs: int, json: bool) -> None:
    from xoar.host.bench import pair, report
    from xoar.host.progress import Reporter

    show = Reporter()
    both = pair.prepare(show)
    machine = report.this_machine() | both.facts()
    _print(report.Report(measure(both, runs, show), machine), json)


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
