"""Runs in a machine of `namespaces`: sends and hears frames on an interface, as told on standard input."""

import os
import select
import socket
import sys
import time

_TIMEOUT = 10  # seconds
_OUTGOING = 4  # PACKET_OUTGOING


def main(interface: str) -> None:
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
    port.bind((interface, 0x0003))
    # each processor has a queue of its own for what arrives over veth: on one, frames keep their order
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("ready", flush=True)
    for line in sys.stdin:
        command, data = line.split()
        frame = bytes.fromhex(data)
        if command == "send":
            port.send(frame)
            print("sent", flush=True)
        else:
            print(hear(port, frame), flush=True)


def hear(port: socket.socket, last: bytes) -> str:
    heard = []
    end = time.monotonic() + _TIMEOUT
    while select.select([port], [], [], max(end - time.monotonic(), 0))[0]:
        frame, where = port.recvfrom(65536)
        if where[2] == _OUTGOING:
            continue
        if frame == last:
            return " ".join(heard)
        heard.append(frame.hex())
    return "timeout"


if __name__ == "__main__":
    main(sys.argv[1])
