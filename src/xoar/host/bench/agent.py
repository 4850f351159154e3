#!/usr/bin/python3
"""Runs in the guest that is measured: does what the benchmark on the operator's machine tells it.

The file is the guest's user data. cloud-init runs it once, without arguments, and it installs itself as a
service. That connects to QEMU's user network, which leads to the operator's loopback, and gets lines of JSON:

- {"run": [program, ...]}
- {"download": BYTES, "port": N, "file": PATH}: done when so many bytes from that port are written and flushed

Each is answered by {"status": N, "output": TEXT, "seconds": by the guest's clock}.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from typing import Any

SERVER = "10.0.2.2"  # QEMU's user network, for the machine that runs it
PORT = 47801
_PROGRAM = "/usr/local/sbin/xoar-bench"
_UNIT = """[Unit]
Description=Workloads of xoar bench
[Service]
ExecStart=%s serve
Restart=always
[Install]
WantedBy=multi-user.target
"""


def install() -> None:
    """Has systemd start the service now and at each boot."""
    shutil.copyfile(__file__, _PROGRAM)
    os.chmod(_PROGRAM, 0o755)
    with open("/etc/systemd/system/xoar-bench.service", "w") as file:
        file.write(_UNIT % _PROGRAM)
    subprocess.run(["systemctl", "enable", "--now", "--no-block", "xoar-bench.service"], check=True)


def serve() -> None:
    """Connects as soon as the network is there, and serves until the other end hangs up."""
    while True:
        try:
            connection = socket.create_connection((SERVER, PORT), timeout=5)
            break
        except OSError:
            time.sleep(0.1)
    connection.settimeout(None)
    with connection, connection.makefile("rw") as lines:
        for line in lines:
            lines.write(json.dumps(answer(json.loads(line))) + "\n")
            lines.flush()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Does one thing."""
    began = time.monotonic()
    if "run" in request:
        done = subprocess.run(
            request["run"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        status, output = done.returncode, done.stdout.decode(errors="replace")
    else:
        status, output = download(request["download"], request["port"], request["file"])
    return {"status": status, "output": output, "seconds": time.monotonic() - began}


def download(length: int, port: int, path: str) -> tuple[int, str]:
    """From the network to a disk: exit code, and what went wrong."""
    left = length
    buffer = memoryview(bytearray(1 << 20))
    try:
        with socket.create_connection((SERVER, port)) as source, open(path, "r+b", buffering=0) as target:
            while left and (count := source.recv_into(buffer)):
                target.write(buffer[:count])
                left -= count
            os.fsync(target.fileno())
    except OSError as error:
        return 1, str(error)
    return (1, f"{left} bytes are missing") if left else (0, "")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        install()
