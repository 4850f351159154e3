"""CONTROL: what makes sense here of xenstored's control commands. Only managers get this far."""

from xoar.xenstore import wire
from xoar.xenstore.errors import Refused
from xoar.xenstore.quotas import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from xoar.xenstore.server import Server

_HELP = (
    ("check", "looks for inconsistencies, which are logged"),
    ("print", "<string>"),
    ("quota", "[set <name> <val>|<domid>]"),
    ("help", ""),
)


def perform(server: "Server", words: "list[bytes]") -> bytes:
    """Does one command and returns the reply's payload. Raises Refused(EINVAL) for what there is not."""
    command, arguments = words[:1], words[1:]
    if command == [b"check"] and not arguments:
        for problem in server.contents.problems():
            server.host.log("xenstore: inconsistent: " + problem)
        return wire.OK
    if command == [b"print"] and len(arguments) == 1:
        server.host.log("xenstore: control: " + _printable(arguments[0]))
        return wire.OK
    if command == [b"help"] and not arguments:
        return "".join(["%s\t%s\n" % line for line in _HELP]).encode() + b"\0"
    if command == [b"quota"]:
        return _quota(server, arguments)
    raise Refused("EINVAL")


def _quota(server: "Server", arguments: "list[bytes]") -> bytes:
    if not arguments:
        lines = ["%-17s: %8d %s\n" % (name, server.limits[name], text) for name, _, text in TABLE]
        return "".join(["Quota settings:\n"] + lines).encode() + b"\0"
    if len(arguments) == 3 and arguments[0] == b"set":
        name = _printable(arguments[1])
        value = wire.number(arguments[2])
        if name not in server.limits or not value:
            raise Refused("EINVAL")
        server.limits[name] = value
        return wire.OK
    if len(arguments) == 1:
        return _usage(server, wire.number(arguments[0], 0xFFFF)) + b"\0"
    raise Refused("EINVAL")


def _usage(server: "Server", domid: int) -> bytes:
    account = server.domains.accounts.get(domid)
    if account is None:
        raise Refused("ENOENT")
    connection = server.connections.get(domid)
    lines = [("nodes", account.nodes), ("memory", account.memory)]
    if connection is not None:
        lines += [("watches", len(connection.watches)), ("transactions", len(connection.transactions))]
    return ("Domain %d:\n" % domid + "".join(["%-16s: %8d\n" % line for line in lines])).encode()


def _printable(untrusted_text: bytes) -> str:
    return "".join([chr(byte) if 0x20 <= byte <= 0x7E else "?" for byte in untrusted_text])
