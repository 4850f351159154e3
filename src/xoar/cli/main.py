"""`xoar`: the operator's command. Each command is thin: it finds the host, asks it, prints.

Imports that only some commands need stand in these, so that a quick command starts quickly.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from xoar.cli import bench, disk, driver, guest, image, network, nic, options, policy, right, tenant, volume
from xoar.cli.failures import ERROR, NOT_RUNNING, Group, say

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # what gets this far is a bug: the whole traceback is wanted
    rich_markup_mode="markdown",
    help="A Xen host without domain 0: start it, look at it, run guests on it.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, a bad xoar.toml or manifest, 3 no such name, "
    "4 the host is not running, 5 it took too long, 130 interrupted.",
)
app.add_typer(guest.app, name="guest")
app.add_typer(image.app, name="image")
app.add_typer(volume.app, name="volume")
app.add_typer(network.app, name="network")
app.add_typer(disk.app, name="disk")
app.add_typer(nic.app, name="nic")
app.add_typer(driver.app, name="driver")
app.add_typer(tenant.app, name="tenant")
app.add_typer(policy.app, name="policy")
app.add_typer(right.app, name="right")
app.add_typer(bench.app, name="bench")


@app.callback()
def root(host: options.Host = None, config: options.Config = None) -> None:
    """A Xen host without domain 0: start it, look at it, run guests on it.

    Two commands to begin with: `xoar up`, then `xoar console debian`.
    """
    # the same options of the commands take their values from here
    for variable, value in ((options.HOST_VARIABLE, host), (options.CONFIG_VARIABLE, config)):
        if value is not None:
            os.environ[variable] = str(value)


@app.command()
def up(
    host: options.Host = None,
    config: options.Config = None,
    xen_source: Annotated[
        Path | None,
        typer.Option("--xen-source", metavar="DIR", help="Build this Xen tree, not Debian's."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Start the host if it is not running, and the guests of xoar.toml that are missing.

    What else differs between xoar.toml and a running host is said, and left as it is.

    Examples:

    - `xoar up`
    - `xoar up --config lab.toml`
    - `xoar up --host second`
    """
    from xoar.cli import domains
    from xoar.host import guests, keeper, state
    from xoar.host import up as starting
    from xoar.host.client import Client
    from xoar.host.config import FILE, check_files
    from xoar.host.errors import HostError
    from xoar.host.progress import Reporter

    path = options.config_path(config)
    if path is None:
        raise HostError(
            f"there is no {FILE} in this folder", hint="Name one with --config; Xoar's folder has a default."
        )
    wanted = options.load_config(path).for_host(host, xen_source)
    check_files(wanted)
    show = Reporter()
    running = state.Host(wanted.host.name)
    if running.alive() is None:
        record = running.record()
        if record is not None and record.reason:
            show.say(f"host {running.name} had crashed: {record.reason}")
        starting.up(wanted, show)
    else:
        keeper.wait_running(running, starting.START_TIMEOUT)  # another command may be starting it
        show.say(f"host {running.name} is running already")
        for line in guests.machine_differences(running, wanted):
            show.say(line)
    with Client.connect(wanted.host.name) as client:
        complete = guests.converge(client, wanted, show)
        domains.show(client, json)
    if not complete:
        raise typer.Exit(ERROR)


@app.command()
def down(
    erase: Annotated[bool, typer.Option("--erase", help="Also remove its disks, for ever.")] = False,
    host: options.Host = None,
) -> None:
    """End the host with all its guests, at once; nothing of it is left but the cache and its disks.

    Shut guests down first (`xoar guest shutdown NAME`) if they have something to lose.

    Examples:

    - `xoar down`
    - `xoar down --host second`
    - `xoar down --erase`
    """
    from xoar.host import client, state
    from xoar.host import up as starting

    name = options.host_name(host)
    if starting.down(name, erase):
        say(f"host {name} has ended")
    else:
        # nothing to do is no failure: scripts end hosts that may not be there
        say(str(client.not_running(state.Host(name))))


@app.command()
def status(host: options.Host = None, json: options.Json = False) -> None:
    """Show whether the host runs, since when, and its memory. Exit code 4 if it does not run.

    Examples:

    - `xoar status`
    - `xoar status --json`
    """
    from xoar.cli import output
    from xoar.host import client, state

    where = state.Host(options.host_name(host))
    record = where.alive()
    if record is None:
        if json:
            crashed = where.record()
            output.print_json(
                {
                    "host": where.name,
                    "state": "crashed" if crashed else "stopped",
                    "reason": crashed.reason if crashed else "",
                }
            )
            raise typer.Exit(NOT_RUNNING)
        raise client.not_running(where)
    with client.Client.connect(where.name) as connection:
        info = connection.request("host_info").fields
    if json:
        output.print_json(
            {
                "host": where.name,
                "state": record.state,
                "xen_version": info.xen_version,
                "uptime_s": info.uptime_ms // 1000,
                "memory_kib": info.total_kib,
                "free_kib": info.free_kib,
                "domains": info.domains,
                "keeper": record.keeper,
                "emulator": record.emulator,
                "folder": str(where.folder),
            }
        )
        return
    output.print_facts(
        [
            ("host", where.name),
            ("state", record.state),
            ("Xen", info.xen_version),
            ("up for", output.age(info.uptime_ms)),
            ("memory", f"{output.size(info.total_kib)}, {output.size(info.free_kib)} free"),
            ("domains", str(info.domains)),
            ("processes", f"keeper {record.keeper}, emulator {record.emulator}"),
            ("logs", str(where.folder)),
        ]
    )


@app.command()
def ps(host: options.Host = None, json: options.Json = False) -> None:
    """List all domains, shards and guests, as Xen reports them.

    Examples:

    - `xoar ps`
    - `xoar ps --json`
    """
    from xoar.cli import domains
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client:
        domains.show(client, json)


@app.command()
def reboot(
    shard: options.RebootedName = None,
    history: Annotated[
        bool, typer.Option("--history", help="Show the last rollbacks, of SHARD or of all.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, max=600, help="Seconds to wait.")] = 10,
    host: options.Host = None,
    json: options.Json = False,
) -> None:
    """Put a shard back to what it was before its first request, in some milliseconds.

    `xoar ps` says which shards can be, and when they are by themselves. In the history, life 1 is the
    snapshot, and the parts of the time are milliseconds. A rollback that is missing there was told too late
    to be kept.

    Examples:

    - `xoar reboot logic`
    - `xoar reboot --history`
    - `xoar reboot logic --history --json`
    """
    from xoar.cli import names, output
    from xoar.cli import reboot as reboots
    from xoar.cli.failures import say
    from xoar.host.client import Client

    if shard is None and not history:
        raise typer.BadParameter("name a shard, or ask for the --history")
    with Client.connect(options.host_name(host)) as client:
        if history:
            records, now_ms = client.rollbacks()
            if shard is not None:
                records = [record for record in records if record.target == shard]
            reboots.print_history(records, now_ms, json)
            return
        assert shard is not None
        with names.known(client.restarted, shard):
            reply = client.request(
                "shard_reboot", timeout + options.SLACK, name=shard, timeout_ms=round(timeout * 1000)
            )
    record = reply.fields.rollback
    if json:
        output.print_json(reboots.facts(record))
    else:
        took = reboots.milliseconds(record.total_us)
        say(f"{shard} is in its life {record.life}: {record.pages} pages restored in {took} ms")


@app.command()
def logs(
    name: options.LogName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more comes; Ctrl-C ends.")] = False,
    host: options.Host = None,
) -> None:
    """Show what a guest's console showed lately (16 KiB), a shard's lines in Xen's log, or Xen's whole log.

    Logs of shards and of Xen can be read after a crash, too, until the host is started again.

    Examples:

    - `xoar logs debian -f`
    - `xoar logs builder`
    - `xoar logs xen`
    """
    from xoar.cli import logs as reading
    from xoar.cli import names
    from xoar.cli.plain import Plain
    from xoar.host import client, state, tenants

    named = options.host_name(host)
    spoken_for, host_name = tenants.split(named)
    where = state.Host(host_name)
    shards = {} if spoken_for else names.shard_domids()
    out = sys.stdout.buffer
    if name == reading.XEN or name in shards:
        if where.record() is None:
            raise client.not_running(where)
        pick = reading.everything if name == reading.XEN else reading.of_domain(shards[name])
        for line in reading.lines(where, follow):
            if (text := pick(line)) is not None:
                out.write(text + b"\n")
                out.flush()
        return
    with client.Client.connect(named) as connection:
        plain = Plain()
        if spoken_for:
            stream = connection.attach(name, "follow" if follow else "log")
        else:
            stream = connection.log(names.log_domid(connection, name), follow)
        for data in client.chunks(stream):
            out.write(plain.feed(data))
            out.flush()


@app.command()
def console(
    name: options.GuestName,
    login: Annotated[
        str | None,
        typer.Option(help="Scripts: log in as this user first; default: login in xoar.toml.", metavar="USER"),
    ] = None,
    wait: Annotated[
        str | None, typer.Option(help="Scripts: what a prompt looks like (regular expression, $ is the end).")
    ] = None,
    quiet: Annotated[float, typer.Option(help="Scripts: seconds of silence that count as an answer.")] = 10,
    timeout: Annotated[float, typer.Option(help="Scripts: seconds for everything.")] = 120,
    host: options.Host = None,
    config: options.Config = None,
) -> None:
    """Use a guest's console. Ctrl-] leaves it; the guest runs on.

    With input from a pipe or a file it is a script: each line is sent when the guest shows a prompt, and the
    command ends when a prompt follows the last line, or after `--quiet` seconds of silence. The first line
    waits for a prompt in any case. Output, with the echo of what is typed, goes to standard output from the
    first line on. If the guest shows a login prompt first, the user of `--login` (or of `login` in xoar.toml)
    is logged in, unless the script's first line is that name. Exit code 5 after `--timeout` seconds.

    Examples:

    - `xoar console debian`
    - `echo 'uname -a' | xoar console debian`
    - `printf 'root\\nuname -a\\n' | xoar console other --timeout 60`
    """
    from xoar.cli import console as use
    from xoar.cli import script

    where = options.host_name(host)
    if sys.stdin.isatty():
        use.interactive(where, name)
        return
    try:
        prompt = re.compile(wait or script.PROMPT)
    except re.error as error:
        raise typer.BadParameter(f"no regular expression: {error}", param_hint="--wait") from error
    user = _login(name, where, config) if login is None else login
    use.scripted(where, name, script.Rules(prompt, quiet, timeout, user))


def _login(guest_name: str, host_name: str, path: Path | None) -> str:
    """Who xoar.toml says that scripts log in as; "" if it is not about this guest."""
    wanted = options.load_config(path)
    ours = wanted.host.name == host_name and guest_name in wanted.guests
    return wanted.guests[guest_name].login if ours else ""


@app.command()
def ssh(
    name: options.GuestName,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="What to run; else a shell.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="USER", help="Default: the one in xoar.toml, else xoar.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the guest to answer.")] = 300,
    host: options.Host = None,
    config: options.Config = None,
) -> None:
    """Log in to a guest of the emulated host over SSH, or run a command there; its exit code is ssh's.

    Guests that cloud-init sets up know the operator's key, which is made at first use.

    Examples:

    - `xoar ssh web`
    - `xoar ssh web -- uname -a`
    """
    from xoar.cli import names
    from xoar.host import reach
    from xoar.host import ssh as login
    from xoar.host.client import Client
    from xoar.host.devices import CloudInit

    where = options.host_name(host)
    if user is None:
        wanted = options.load_config(config)
        ours = wanted.guests.get(name) if wanted.host.name == where else None
        user = (ours.cloud_init if ours and ours.cloud_init else CloudInit()).user
    with Client.connect(where) as client, names.known_guest(client, name):
        port = reach.ssh_port(client, name, timeout)
        argv = login.command(client.host, name, user, port, words or [])
    sys.stdout.flush()
    os.execv(argv[0], argv)


@app.command()
def top(
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2,
    once: Annotated[bool, typer.Option("--once", help="Look once, print, end.")] = False,
    host: options.Host = None,
    json: options.Json = False,
) -> None:
    """Watch what the domains use: processor time (100 % is one processor), memory. Ctrl-C ends.

    Of shards that are rolled back: when, how often so far, how often a second now, how long ago last.

    Examples:

    - `xoar top`
    - `xoar top --once --json`
    """
    from xoar.cli import top as watching
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client:
        if once or json or not sys.stdout.isatty():
            watching.once(client, interval, json)
        else:
            watching.live(client, interval)


@app.command()
def sharing(
    dot: Annotated[bool, typer.Option("--dot", help="Print a graph in Graphviz's language.")] = False,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Draw it into this file; needs Graphviz.")
    ] = None,
    host: options.Host = None,
    json: options.Json = False,
) -> None:
    """Show which guests share which shards, and what whoever took over a shard would reach.

    Examples:

    - `xoar sharing`
    - `xoar sharing --json`
    - `xoar sharing --svg sharing.svg`
    - `xoar sharing --dot | dot -Tpdf > sharing.pdf`
    """
    from xoar.cli import output
    from xoar.cli import sharing as looking
    from xoar.host import drawing
    from xoar.host.client import Client

    if json + dot + (svg is not None) > 1:
        raise typer.BadParameter("--dot, --svg and --json exclude one another")
    where = options.host_name(host)
    with Client.connect(where) as client:
        shared = looking.look(client)
    if json:
        output.print_json(looking.facts(shared))
    elif dot:
        print(drawing.dot(where, shared), end="")
    elif svg is not None:
        drawing.svg(drawing.dot(where, shared), svg)
        say(f"{svg} is drawn")
    else:
        looking.show(shared)


@app.command()
def journal(host: options.Host = None, json: options.Json = False) -> None:
    """Show what was changed about rights while the host runs, what was refused, and who asked.

    Examples:

    - `xoar journal`
    - `xoar journal --json`
    """
    from xoar.cli import output
    from xoar.host.client import Client

    with Client.connect(options.host_name(host)) as client:
        entries, last = client.journal()
    if json:
        output.print_json({"dropped": last.dropped, "entries": [entry._asdict() for entry in entries]})
        return
    if last.dropped:
        say(f"{last.dropped} older entries are not kept any more")
    rows = [
        (str(entry.number), output.age((last.now_ns - entry.when_ns) // 1_000_000), *entry[2:])
        for entry in entries
    ]
    output.print_table(("number", "ago", "who", "what", "outcome"), rows, right=("number",))


@app.command("debug-keys")
def debug_keys(
    keys: Annotated[str, typer.Argument(metavar="KEYS", help="Letters; h makes Xen list all.")],
    host: options.Host = None,
) -> None:
    """Press debug keys of Xen's that only print; read what they print with `xoar logs xen`.

    Console presses them, which must be permitted first. Keys that do more are refused.

    Examples:

    - `xoar right permit console xen.debug`, then `xoar debug-keys q`
    """
    from xoar.host.client import Client
    from xoar.host.errors import HostError
    from xoar.messages.line import NOT_PERMITTED

    with Client.connect(options.host_name(host)) as client:
        try:
            client.press(keys)
        except HostError as error:
            if NOT_PERMITTED in str(error):
                raise HostError(
                    str(error), hint="Permit it with: xoar right permit console xen.debug"
                ) from error
            raise
    say("pressed; what they print is in: xoar logs xen")


@app.command()
def tcb(config: options.Config = None, json: options.Json = False) -> None:
    """Count the code that must be trusted: lines compiled into Bootstrapper and Builder; sizes of all shards.

    Needs no running host; builds what is not in the cache.

    Examples:

    - `xoar tcb`
    - `xoar tcb --json`
    """
    from xoar.cli import output
    from xoar.cli import tcb as counting

    report = counting.report(options.load_config(config))
    if json:
        output.print_json(report.as_dict())
    else:
        counting.show(report)


@app.command()
def xenstored(
    socket: Annotated[Path, typer.Option("--socket", metavar="PATH", help="The Unix socket to listen on.")],
) -> None:
    """Serve XenStore on a Unix socket without Xen, for tests and tools. Ctrl-C ends.

    Examples:

    - `xoar xenstored --socket /tmp/xs`, then `XENSTORED_PATH=/tmp/xs xenstore-ls`
    """
    from xoar.host.errors import HostError
    from xoar.host.xenstored import SocketInUse, serve

    try:
        serve(str(socket))
    except SocketInUse as error:
        raise HostError(str(error)) from error


def main() -> None:
    """The entry point."""
    app(prog_name="xoar")


if __name__ == "__main__":
    main()
