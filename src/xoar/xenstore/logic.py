"""Logic: reads a client's request, has State do the one operation that it means, and words the answer.

It keeps nothing, so it can be rolled back at any moment: a new one is as good as the old one. What outlives
a request (connections, transactions, watches, events, replies on their way) is kept by the gate, and what
of it Logic was told to change was checked by State then. The table at the end says which request needs which
privilege; State checks that again.
"""

from collections import namedtuple

from xoar.xenstore import paths, wire
from xoar.xenstore.errors import Refused
from xoar.xenstore.quotas import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NamedTuple

    from xoar.xenstore.request import Outcome

    class Asked(NamedTuple):
        """What Logic is told of a request: the fields of `store_request` (xoar.messages.store)."""

        domid: int
        manager: int
        transaction: str
        type: int
        payload: bytes

    Operate = Callable[..., Outcome]
    """operate(kind, *arguments): has State do an operation (xoar.xenstore.request). Raises Refused."""

    class Answer(NamedTuple):
        """What a request comes to: the error's name, or "" and the reply's payload."""

        refusal: str
        payload: bytes

else:
    Answer = namedtuple("Answer", ("refusal", "payload"))

_DOMID_LAST = 0x7FEF
_DOMID_SELF = 0x7FF0
_ANY_DEPTH = 0xFFFFFFFF

_HELP = (
    ("check", "looks for inconsistencies, which are logged"),
    ("print", "<string>"),
    ("quota", "[set <name> <val>|<domid>]"),
    ("help", ""),
)


def answer(asked: "Asked", operate: "Operate") -> "Answer":
    """Does a request; the only way in. Nothing is left of it afterwards."""
    try:
        entry = _REQUESTS.get(asked.type)
        if entry is None:
            raise Refused("ENOSYS")
        handler, privileged, transactional = entry
        if privileged and not asked.manager:
            raise Refused("EACCES")
        if transactional and asked.transaction == "unknown":
            raise Refused("ENOENT")
        payload = handler(asked, operate)
        if len(payload) > wire.PAYLOAD_MAX:
            raise Refused("E2BIG")
    except Refused as error:
        return Answer(error.name, b"")
    return Answer("", payload)


# nodes


def _directory(asked: "Asked", operate: "Operate") -> bytes:
    _, size, names = operate("store_list", _path(asked), 0)
    if size > len(names):
        raise Refused("E2BIG")
    return bytes(names)


def _directory_part(asked: "Asked", operate: "Operate") -> bytes:
    path, offset = _arguments(asked, 2)
    start = wire.number(offset)
    generation, size, names = operate("store_list", _tree_path(asked, path), start)
    head = b"%d\0" % generation
    names = names[: wire.PAYLOAD_MAX - len(head) - 1]
    names = names[: names.rfind(b"\0") + 1]
    if start + len(names) >= size:
        names += b"\0"
    return bytes(head + names)


def _read(asked: "Asked", operate: "Operate") -> bytes:
    (value,) = operate("store_read", _path(asked))
    return bytes(value)


def _write(asked: "Asked", operate: "Operate") -> bytes:
    end = asked.payload.find(b"\0")
    if end < 0:
        raise Refused("EINVAL")
    path = _tree_path(asked, asked.payload[:end])
    return _done(operate, "store_put", path, asked.payload[end + 1 :])


def _mkdir(asked: "Asked", operate: "Operate") -> bytes:
    return _done(operate, "store_make", _path(asked))


def _rm(asked: "Asked", operate: "Operate") -> bytes:
    return _done(operate, "store_remove", _path(asked))


def _get_perms(asked: "Asked", operate: "Operate") -> bytes:
    path = _absolute(asked, wire.one_string(asked.payload))
    (permissions,) = operate("store_get_permissions", path)
    return b"".join([wire.format_permission(entry) + b"\0" for entry in permissions])


def _set_perms(asked: "Asked", operate: "Operate") -> bytes:
    words = wire.strings(asked.payload)
    if len(words) < 2:
        raise Refused("EINVAL")
    permissions = tuple([wire.parse_permission(word) for word in words[1:]])
    return _done(operate, "store_set_permissions", _absolute(asked, words[0]), permissions)


# watches and transactions


def _watch(asked: "Asked", operate: "Operate") -> bytes:
    words = wire.strings(asked.payload)
    if not 2 <= len(words) <= 3:
        raise Refused("EINVAL")
    depth = wire.number(words[2]) if len(words) == 3 else _ANY_DEPTH
    path = _absolute(asked, words[0])
    if path[:1] == b"@" and depth not in (_ANY_DEPTH, 1):
        raise Refused("EINVAL")
    relative = int(words[0][:1] not in b"/@")
    return _done(operate, "store_watch", path, words[1], depth, relative)


def _unwatch(asked: "Asked", operate: "Operate") -> bytes:
    words = wire.strings(asked.payload)
    if len(words) < 2:
        raise Refused("EINVAL")
    return _done(operate, "store_unwatch", _absolute(asked, words[0]), words[1])


def _reset_watches(asked: "Asked", operate: "Operate") -> bytes:
    return _done(operate, "store_forget")


def _transaction_start(asked: "Asked", operate: "Operate") -> bytes:
    if asked.transaction != "none":
        raise Refused("EBUSY")
    (number,) = operate("store_begin")
    return b"%d\0" % number


def _transaction_end(asked: "Asked", operate: "Operate") -> bytes:
    decision = wire.one_string(asked.payload)
    if decision not in (b"T", b"F"):
        raise Refused("EINVAL")
    if asked.transaction == "none":
        raise Refused("ENOENT")
    return _done(operate, "store_end", int(decision == b"T"))


# domains


def _introduce(asked: "Asked", operate: "Operate") -> bytes:
    domid, _, port = _arguments(asked, 3)
    if not wire.number(port):
        raise Refused("EINVAL")
    return _done(operate, "store_introduce", wire.number(domid, _DOMID_LAST), wire.number(port))


def _release(asked: "Asked", operate: "Operate") -> bytes:
    return _done(operate, "store_release", wire.number(wire.one_string(asked.payload), _DOMID_LAST))


def _resume(asked: "Asked", operate: "Operate") -> bytes:
    return _done(operate, "store_resume", wire.number(wire.one_string(asked.payload), _DOMID_LAST))


def _set_target(asked: "Asked", operate: "Operate") -> bytes:
    domids = [wire.number(word, _DOMID_LAST) for word in _arguments(asked, 2)]
    return _done(operate, "store_set_target", domids[0], domids[1])


def _get_domain_path(asked: "Asked", operate: "Operate") -> bytes:
    return paths.home(wire.number(wire.one_string(asked.payload), 0xFFFF)) + b"\0"


def _is_domain_introduced(asked: "Asked", operate: "Operate") -> bytes:
    domid = wire.number(wire.one_string(asked.payload), 0xFFFF)
    if domid == _DOMID_SELF:
        return b"T\0"
    (introduced,) = operate("store_is_introduced", domid)
    return b"T\0" if introduced else b"F\0"


# CONTROL: what makes sense here of xenstored's commands


def _control(asked: "Asked", operate: "Operate") -> bytes:
    words = wire.strings(asked.payload)
    command, arguments = words[:1], words[1:]
    if command == [b"check"] and not arguments:
        return _done(operate, "store_check")
    if command == [b"print"] and len(arguments) == 1:
        return _done(operate, "store_log", _printable(arguments[0]))
    if command == [b"help"] and not arguments:
        return "".join(["%s\t%s\n" % line for line in _HELP]).encode() + b"\0"
    if command == [b"quota"] and not arguments:
        return _quotas(operate)
    if command == [b"quota"] and len(arguments) == 3 and arguments[0] == b"set":
        value = wire.number(arguments[2])
        return _done(operate, "store_set_limit", _quota_name(arguments[1]), value)
    if command == [b"quota"] and len(arguments) == 1:
        return _usage(operate, wire.number(arguments[0], 0xFFFF))
    raise Refused("EINVAL")


def _quotas(operate: "Operate") -> bytes:
    (limits,) = operate("store_limits")
    values = dict([(name, value) for name, value in limits])
    lines = ["%-17s: %8d %s\n" % (name, values[name], text) for name, _, text in TABLE]
    return "".join(["Quota settings:\n"] + lines).encode() + b"\0"


def _usage(operate: "Operate", domid: int) -> bytes:
    nodes, memory, connected, watches, transactions = operate("store_usage", domid)
    lines = [("nodes", nodes), ("memory", memory)]
    if connected:
        lines += [("watches", watches), ("transactions", transactions)]
    text = "Domain %d:\n" % domid + "".join(["%-16s: %8d\n" % line for line in lines])
    return text.encode() + b"\0"


def _done(operate: "Operate", kind: str, *arguments: "Any") -> bytes:
    operate(kind, *arguments)
    return wire.OK


def _absolute(asked: "Asked", untrusted_path: bytes) -> bytes:
    """The absolute path, of a length that an operation can carry."""
    path = paths.absolute(untrusted_path, paths.home(asked.domid))
    if len(path) > paths.ABSOLUTE_MAX:
        raise Refused("EINVAL")
    return path


def _tree_path(asked: "Asked", untrusted_path: bytes) -> bytes:
    path = _absolute(asked, untrusted_path)
    if path[:1] == b"@":
        raise Refused("EINVAL")
    return path


def _path(asked: "Asked") -> bytes:
    return _tree_path(asked, wire.one_string(asked.payload))


def _arguments(asked: "Asked", count: int) -> "list[bytes]":
    words = wire.strings(asked.payload)
    if len(words) < count:
        raise Refused("EINVAL")
    return words[:count]


def _quota_name(untrusted_word: bytes) -> str:
    for name, _, _ in TABLE:
        if name.encode() == untrusted_word:
            return name
    raise Refused("EINVAL")


def _printable(untrusted_text: bytes) -> str:
    return "".join([chr(byte) if 0x20 <= byte <= 0x7E else "?" for byte in untrusted_text])


# request: (handler, only for managers, its transaction id means something)
_REQUESTS: "dict[int, tuple[Callable[[Asked, Operate], bytes], bool, bool]]" = {
    wire.CONTROL: (_control, True, True),
    wire.DIRECTORY: (_directory, False, True),
    wire.READ: (_read, False, True),
    wire.GET_PERMS: (_get_perms, False, True),
    wire.WATCH: (_watch, False, False),
    wire.UNWATCH: (_unwatch, False, False),
    wire.TRANSACTION_START: (_transaction_start, False, True),
    wire.TRANSACTION_END: (_transaction_end, False, True),
    wire.INTRODUCE: (_introduce, True, True),
    wire.RELEASE: (_release, True, True),
    wire.GET_DOMAIN_PATH: (_get_domain_path, False, True),
    wire.WRITE: (_write, False, True),
    wire.MKDIR: (_mkdir, False, True),
    wire.RM: (_rm, False, True),
    wire.SET_PERMS: (_set_perms, False, True),
    wire.IS_DOMAIN_INTRODUCED: (_is_domain_introduced, True, True),
    wire.RESUME: (_resume, True, True),
    wire.SET_TARGET: (_set_target, True, True),
    wire.RESET_WATCHES: (_reset_watches, False, True),
    wire.DIRECTORY_PART: (_directory_part, False, True),
}
