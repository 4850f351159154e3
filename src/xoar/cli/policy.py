"""`xoar policy`: what the FLASK policy allows, and because of which manifest line. Needs no running host."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xoar.cli import options
from xoar.cli.failures import ERROR

if TYPE_CHECKING:
    from xoar.privilege.rules import Group, Origin

app = typer.Typer(no_args_is_help=True, help="Rights of domains, and the manifest lines they come from.")


@app.callback()
def policy() -> None:
    """Rights of domains, and the manifest lines that they come from. No host need run."""


@app.command()
def show(name: options.ManifestName, json: options.Json = False) -> None:
    """List what a shard, a kind of driver domain or guests may do, and what others may do to them.

    Examples:

    - `xoar policy show builder`
    - `xoar policy show guest --json`
    """
    from xoar.cli import names, output
    from xoar.privilege import explain, rules, shardset

    shards = shardset.load_all()
    manifest = shards.manifests.get(name)
    if manifest is None:
        raise names.unknown("shard, driver domain's kind or guest", name, shards.manifests)
    allowed = rules.derive(shards)
    held, over = explain.held_by(manifest, allowed), explain.held_over(manifest, allowed)
    if json:
        output.print_json({"name": name, "may": _facts(held), "others_may": _facts(over)})
        return
    print(f"rights of {name}")
    _print_by(lambda group: explain.party(shards, group.target), held)
    print(f"\nrights of others on {name}")
    _print_by(lambda group: explain.party(shards, group.source), over)


@app.command("explain")
def explain_right(
    asker: options.Asker,
    asked: options.Asked,
    right: Annotated[
        str, typer.Argument(metavar="RIGHT", help="A permission, or class:permission, as Xen names them.")
    ],
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Tell whether A has a right on B, because of which line, or why not. Exit code 1 if it is not allowed.

    Takes the words of a denial in Xen's log, too. Builds Xen if it is not in the cache, to know its classes.

    Examples:

    - `xoar policy explain builder guest domain:create`
    - `xoar policy explain guest self physmap`
    - `xoar policy explain system_u:system_r:toolstack_t system_u:system_r:guest_t domain:pause`
    """
    from xoar.cli import output
    from xoar.host.apt import Apt
    from xoar.host.build import xen
    from xoar.host.progress import Reporter
    from xoar.privilege import explain, shardset, vectors
    from xoar.privilege.errors import UnknownName

    reporter = Reporter()
    built = xen.build(Apt(reporter), reporter, options.load_config(config).host.xen_source)
    try:
        answer = explain.explain(shardset.load_all(), vectors.load(built.flask), asker, asked, right)
    except UnknownName as error:
        raise typer.BadParameter(str(error)) from error
    rule = answer.rule
    if json:
        output.print_json(
            {
                "allowed": answer.allowed,
                "optional": answer.optional,
                "source": rule.source,
                "target": rule.target,
                "class": rule.security_class,
                "permission": rule.permission,
                "because": _origins(answer.origins),
                "promises": list(answer.broken),
                "remedy": answer.remedy,
            }
        )
    else:
        word = "optional, off by default" if answer.optional else "not allowed"
        print(f"{'allowed' if answer.allowed else word}: {rule}")
        for origin in answer.origins:
            print(f"  {origin}")
        for promise in answer.broken:
            print(f"  it would break the promise: {promise}")
        if answer.remedy:
            print(f"  {answer.remedy}")
    if not answer.allowed:
        raise typer.Exit(ERROR)


@app.command()
def diff(
    old: Annotated[
        Path,
        typer.Argument(
            metavar="OLD", help="A folder of manifests, or of another Xoar.", exists=True, file_okay=False
        ),
    ],
    json: options.Json = False,
) -> None:
    """List rules that only other manifests allow (-), or only these (+). Exit code 1 if there are any.

    Examples:

    - `git worktree add ../old main`, then `xoar policy diff ../old`
    """
    from xoar.cli import output
    from xoar.privilege import explain, rules, shardset

    before = rules.derive(shardset.load_all(_manifests_in(old)))
    removed, added = explain.diff(before, rules.derive(shardset.load_all()))
    if json:
        output.print_json({"removed": _facts(removed), "added": _facts(added)})
    else:
        for sign, groups in (("-", removed), ("+", added)):
            for group in groups:
                _print_group(group, sign)
    if removed or added:
        raise typer.Exit(ERROR)


def _manifests_in(folder: Path) -> Path:
    for place in (folder, folder / "src/xoar/shards"):
        if any(place.glob("*/manifest.toml")):
            return place
    raise typer.BadParameter(f"{folder} has no */manifest.toml in it or in its src/xoar/shards")


def _print_by(heading: Callable[[Group], str], groups: list[Group]) -> None:
    by_heading: dict[str, list[Group]] = {}
    for group in groups:
        by_heading.setdefault(heading(group), []).append(group)
    for text, members in by_heading.items():
        print(f"\n  {text}:")
        for group in members:
            _print_group(group, "   ")


def _print_group(group: Group, before: str) -> None:
    print(f"{before} {group}")
    for origin in group.origins:
        print(f"{' ' * len(before)}   {origin}")


def _facts(groups: Iterable[Group]) -> list[dict[str, object]]:
    return [
        {
            "source": group.source,
            "target": group.target,
            "class": group.security_class,
            "permissions": list(group.permissions),
            "optional": bool(group.condition),
            "because": _origins(group.origins),
        }
        for group in groups
    ]


def _origins(origins: Iterable[Origin]) -> list[dict[str, object]]:
    # a right of every shard has no line
    return [{"manifest": o.manifest, "line": o.line or None, "why": o.why} for o in origins]
