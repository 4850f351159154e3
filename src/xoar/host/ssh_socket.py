"""ssh's ProxyCommand: `python -m xoar.host.ssh_socket PORT` passes it a connection to 127.0.0.1:PORT.

cloud-init starts a guest's SSH server anew while the guest boots for the first time, and what connects in
between is cut off. So ssh gets a connection on which the server has said its first word (ProxyUseFdpass in
ssh_config(5)): those outlive the server that took them.
"""

from __future__ import annotations

import socket
import sys
import time

_BANNER = 5.0  # seconds that a server may take to say that it is one
_PATIENCE = 30.0  # seconds that it may take to be there again
_LOOK = 0.5


def connected(port: int) -> socket.socket | None:
    """A connection to an SSH server, whose first word can be read from it; None if there is none: QEMU takes
    connections for guests that do not listen, too."""
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=_BANNER)
    except OSError:
        return None
    try:
        if connection.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL) == b"SSH-":
            connection.settimeout(None)
            return connection
    except OSError:
        pass
    connection.close()
    return None


def main() -> int:
    """Passes a connection through standard output, which is a socket; 1 if there is none in time."""
    port = int(sys.argv[1])
    deadline = time.monotonic() + _PATIENCE
    while (connection := connected(port)) is None:
        if time.monotonic() > deadline:
            print(f"no SSH server answers at port {port} of 127.0.0.1", file=sys.stderr)
            return 1
        time.sleep(_LOOK)
    with connection, socket.socket(fileno=sys.stdout.fileno()) as ssh:
        socket.send_fds(ssh, [b"\0"], [connection.fileno()])
        ssh.detach()
    return 0


if __name__ == "__main__":
    sys.exit(main())
