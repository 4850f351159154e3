"""Limits for each unprivileged domain. A server has a dict of them by name; `xenstore-control quota` shows
and sets them. docs/xenstore.md says what they add up to.
"""

TABLE = (
    ("nodes", 1000, "Nodes per domain"),
    ("memory", 2 * 1024 * 1024, "Bytes of nodes per domain"),
    ("node-size", 2048, "Bytes of a node"),
    ("permissions", 5, "Permissions per node"),
    ("watches", 128, "Watches per domain"),
    ("transactions", 10, "Open transactions per domain"),
    ("buffers", 1024 * 1024, "Bytes of watches and transactions per domain"),
    ("output", 256 * 1024, "Bytes of unread replies and events per connection"),
)
"""(name, default, what it limits). "output" holds for privileged connections too."""


def quotas(**changed: int) -> "dict[str, int]":
    """The defaults with some of them changed; in keywords _ stands for -."""
    limits = {name: value for name, value, _ in TABLE}
    for name in changed:
        limits[name.replace("_", "-")] = changed[name]
    return limits
