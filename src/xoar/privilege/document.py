"""The table of shards that docs/manifests.md ends with, from the manifests.

`python -m xoar.privilege.document` prints it.
"""

from xoar.privilege import bootplan, shardset


def markdown() -> str:
    """The shards of this host as a table for the documentation. Raises ManifestError."""
    manifests = shardset.load_all()
    order = manifests.in_boot_order()
    first_driver = next(number for number, m in enumerate(order) if m.many)
    domids = {
        "driver": f"{first_driver}..{bootplan.FIRST_GUEST - 1}",
        "guest": f"{bootplan.FIRST_GUEST}..{bootplan.FIRST_TENANT - 1}",
        "shard": f"{bootplan.FIRST_TENANT}..",
    }
    rows = ["| domid | name | what it does | memory | lives | opens links to |", "|---|---|---|---|---|---|"]
    for number, manifest in enumerate(order):
        memory = "as configured" if manifest.memory_kib is None else f"{manifest.memory_kib // 1024} MiB"
        if "library" in manifest.receives:
            memory += " and the image library's size"
        uses = ", ".join(use.server for use in manifest.uses) or "-"
        domid = domids[manifest.kind] if manifest.many else number
        lives = "user's" if manifest.kind == "guest" else manifest.lives
        rows.append(f"| {domid} | {manifest.name} | {manifest.summary} | {memory} | {lives} | {uses} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(markdown())
