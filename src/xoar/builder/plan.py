"""The boot plan as Bootstrapper and Builder read it: lines of words, made by xoar.host.bundle.

shard <name> <domid> <memory in KiB> <vCPUs> <label> <image name>
late <the same>                       a shard that Builder builds on request
driver <name> <shard> <domid> <memory in KiB> <vCPUs> <label> <image name> <its device: a records.BDF>
link <client> <server> <name that the server knows it by> <grant reference>
word <shard> <key=value>              goes onto the shard's command line
ports <shard> <first> <count>         I/O ports that it owns
library <shard>                       gets the image library as its boot module
exceptions <shard>                    hears of domains that end (VIRQ_DOM_EXC)
hardware <shard>                      may pass on configuration space and the memory of devices
ecam <shard>                          one built on request that gets configuration space
quota <shard> <memory in KiB> <vCPUs> <guests> <devices>   what the guests that it asks for may have together
optional <manifest> <class> <permission> <boolean>   a right that is off, and the policy's switch for it
restart <shard> <Restorer> <seconds> <KiB> <port>   is rolled back by that one, after so many seconds (0:
                                      not by time); KiB > 0: it may ask for it itself, and has a recovery box
                                      of that size; <port> is the highest one of its event channels
kick <who> <shard> <requests> <ms>    may ask for its rollback: after so many requests (0: as it likes), and
if
                                      one takes longer than that
room <shard> <KiB>                    memory that it may take later
"""

from collections import OrderedDict, namedtuple

from xoar.builder.errors import EINVAL, BuildError

Shard = namedtuple("Shard", ("name", "domid", "memory_kib", "vcpus", "label", "image", "words", "ports"))
Link = namedtuple("Link", ("client", "server", "name", "gref"))
Driver = namedtuple(
    "Driver", ("name", "shard", "domid", "memory_kib", "vcpus", "label", "image", "bdf")
)  # a Linux PV domain; `shard` is the name of its kind
Plan = namedtuple(
    "Plan",
    (
        "shards",
        "links",
        "late",
        "late_links",
        "drivers",
        "library",
        "exceptions",
        "hardware",
        "ecam",
        "quotas",
        "optional",
        "restarts",
        "kicks",
        "rooms",
    ),
)
"""What is built at boot, then what Builder builds later: late shards with their links, and driver domains.
`quotas` and `rooms` (KiB) are by the shard's name."""
Restart = namedtuple("Restart", ("target", "restorer", "seconds", "box_kib", "most_ports"))
Kick = namedtuple("Kick", ("who", "target", "requests", "patience_ms"))
Quota = namedtuple("Quota", ("memory_kib", "vcpus", "guests", "devices"))
Optional = namedtuple("Optional", ("shard", "security_class", "permission", "boolean"))


def parse(text: str) -> Plan:
    """Reads a plan. BuildError(EINVAL) with the line that can't be understood."""
    plan = Plan([], [], [], [], [], [], [], [], [], OrderedDict(), [], [], [], {})
    by_name = {}
    for line in text.splitlines():
        kind, *words = line.split()
        try:
            if kind in ("shard", "late"):
                name, domid, memory_kib, vcpus, label, image = words
                shard = Shard(name, int(domid), int(memory_kib), int(vcpus), label, image, [], [])
                (plan.shards if kind == "shard" else plan.late).append(shard)
                by_name[name] = shard
            elif kind == "driver":
                name, of, domid, memory_kib, vcpus, label, image, bdf = words
                driver = Driver(name, of, int(domid), int(memory_kib), int(vcpus), label, image, int(bdf))
                plan.drivers.append(driver)
            elif kind == "link":
                client, server, name, gref = words
                link = Link(by_name[client], by_name[server], name, int(gref))
                (plan.late_links if link.client in plan.late else plan.links).append(link)
            elif kind == "word":
                by_name[words[0]].words.append(words[1])
            elif kind == "ports":
                by_name[words[0]].ports.append((int(words[1]), int(words[2])))
            elif kind == "restart":
                seconds, box_kib, most_ports = [int(word) for word in words[2:]]
                plan.restarts.append(
                    Restart(by_name[words[0]], by_name[words[1]], seconds, box_kib, most_ports)
                )
            elif kind == "kick":
                plan.kicks.append(Kick(by_name[words[0]], by_name[words[1]], int(words[2]), int(words[3])))
            elif kind == "room":
                plan.rooms[by_name[words[0]].name] = int(words[1])
            elif kind == "quota":
                limits = [int(word) for word in words[1:]]
                plan.quotas[by_name[words[0]].name] = Quota(*limits)
            elif kind == "optional":
                plan.optional.append(Optional(*words))
            elif kind in ("library", "exceptions", "hardware", "ecam"):
                getattr(plan, kind).append(by_name[words[0]])
            else:
                raise ValueError
        except (ValueError, KeyError, IndexError, TypeError):
            raise BuildError(EINVAL, "boot plan: can't understand '%s'" % line)
    return plan
