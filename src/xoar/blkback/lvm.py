"""Runs LVM's commands, without udev, daemons, or files of theirs outside /run.

LVM's configuration is ours alone: it sees one disk, and never looks into the guests' volumes.
"""

import json
import os
import subprocess
from typing import Any

from xoar.blkback.errors import BlkBackError, CommandError

FOLDER = "/run/xoar-blkback"

# lvm.conf(5). A full pool gives errors at once instead of after a minute of waiting; nothing is locked into
# memory, which keeps a command at a few MiB; nobody extends or monitors the pool.
_CONFIGURATION = """
devices {{
    scan = ["/dev"]
    filter = ["a|^{disk}$|", "r|.*|"]
    global_filter = ["a|^{disk}$|", "r|.*|"]
    scan_lvs = 0
    use_devicesfile = 0
    obtain_device_list_from_udev = 0
    external_device_info_source = "none"
    multipath_component_detection = 0
    md_component_detection = 0
    fw_raid_component_detection = 0
    issue_discards = 1
}}
backup {{ backup = 0 archive = 0 }}
global {{
    umask = 63
    locking_dir = "{folder}/lock"
    use_lvmpolld = 0
    notify_dbus = 0
    event_activation = 0
    system_id_source = "none"
    thin_check_options = ["-q", "--clear-needs-check-flag"]
}}
activation {{
    udev_sync = 0
    udev_rules = 0
    monitoring = 0
    error_when_full = 1
    thin_pool_autoextend_threshold = 100
    auto_set_activation_skip = 0
    use_mlockall = 0
    reserved_stack = 64
    reserved_memory = 1024
}}
"""


class Lvm:
    """LVM with one disk, such as "/dev/sda"."""

    def __init__(self, disk: str) -> None:
        os.makedirs(FOLDER, mode=0o700, exist_ok=True)
        with open(f"{FOLDER}/lvm.conf", "w") as file:
            file.write(_CONFIGURATION.format(disk=disk, folder=FOLDER))

    def run(self, *words: str) -> str:
        """What a command prints. Raises CommandError."""
        environment = {
            "LVM_SYSTEM_DIR": FOLDER,
            "LVM_SUPPRESS_FD_WARNINGS": "1",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C",
        }
        done = subprocess.run(
            ["lvm", *words],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            env=environment, check=False,
        )  # fmt: skip
        if done.returncode:
            raise CommandError(f"lvm {words[0]}", done.returncode, done.stderr)
        return done.stdout

    def report(self, command: str, fields: str, *words: str) -> list[dict[str, str]]:
        """The rows of a report (pvs, vgs, lvs) with these fields; sizes in bytes."""
        text = self.run(
            command, "--reportformat", "json", "--units", "b", "--nosuffix", "-o", fields, *words
        )  # fmt: skip
        return rows(text, command)


def rows(text: str, command: str) -> list[dict[str, str]]:
    """The rows of a report in LVM's JSON format. Raises BlkBackError if it is none."""
    try:
        report: Any = json.loads(text)["report"][0][command[:-1]]
        found = [{str(key): str(value) for key, value in row.items()} for row in report]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BlkBackError(f"lvm {command} prints no report in JSON") from error
    return found
