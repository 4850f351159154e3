"""The boot plan as Bootstrapper reads it: lines of words, made from the manifests by xoar.host.bundle.

shard <name> <domid> <memory in KiB> <vCPUs> <label> <image name>
link <client> <server> <name that the server knows it by> <grant reference>
word <shard> <key=value>              goes onto the shard's command line
ports <shard> <first> <count>         I/O ports that it owns
library <shard>                       gets the image library as its boot module
exceptions <shard>                    hears of domains that end (VIRQ_DOM_EXC)
"""

from collections import namedtuple

from xoar.builder.errors import EINVAL, BuildError

Shard = namedtuple("Shard", ("name", "domid", "memory_kib", "vcpus", "label", "image", "words", "ports"))
Link = namedtuple("Link", ("client", "server", "name", "gref"))
Plan = namedtuple("Plan", ("shards", "links", "library", "exceptions"))


def parse(text: str) -> Plan:
    """Reads a plan. BuildError(EINVAL) with the line that can't be understood."""
    plan = Plan([], [], [], [])
    by_name = {}
    for line in text.splitlines():
        kind, *words = line.split()
        try:
            if kind == "shard":
                name, domid, memory_kib, vcpus, label, image = words
                shard = Shard(name, int(domid), int(memory_kib), int(vcpus), label, image, [], [])
                plan.shards.append(shard)
                by_name[name] = shard
            elif kind == "link":
                client, server, name, gref = words
                plan.links.append(Link(by_name[client], by_name[server], name, int(gref)))
            elif kind == "word":
                by_name[words[0]].words.append(words[1])
            elif kind == "ports":
                by_name[words[0]].ports.append((int(words[1]), int(words[2])))
            elif kind in ("library", "exceptions"):
                getattr(plan, kind).append(by_name[words[0]])
            else:
                raise ValueError
        except (ValueError, KeyError, IndexError):
            raise BuildError(EINVAL, "boot plan: can't understand '%s'" % line)
    return plan
