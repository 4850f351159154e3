"""Stands in for QEMU in the keeper's tests: answers QMP, and is the Console shard on the line.

What it does is said by the last word of its kernel arguments, so that a test needs no other channel:
"serve" greets and serves an echo, "silent" says nothing, "panic" writes a panic to Xen's console,
"exit" ends at once with code 3. It forwards ports for every network card but "absent".
"""

import json
import os
import socket
import sys
import threading

from xoar.messages.line import LineServer


def _fd(name: str) -> int:
    (argument,) = [word for word in sys.argv if word.startswith(f"socket,id={name},")]
    return int(argument.rpartition("fd=")[2])


def _qmp(connection: socket.socket) -> None:
    version = {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}
    connection.sendall(json.dumps({"QMP": {"version": version, "capabilities": []}}).encode() + b"\n")
    text = ""
    while data := connection.recv(4096):
        text += data.decode()
        command, end = json.JSONDecoder().raw_decode(text)  # the client ends no message with a newline
        text = text[end:]
        result: object = {}
        if command["execute"] == "human-monitor-command":
            words = command["arguments"]["command-line"]
            result = "unknown netdev\r\n" if words.startswith("hostfwd_add absent ") else ""
        connection.sendall(json.dumps({"return": result, "id": command.get("id")}).encode() + b"\n")
        if command["execute"] == "quit":
            os._exit(0)


def _echo(connection: socket.socket) -> None:
    line = LineServer()
    line.greet()
    while True:
        connection.sendall(line.take(1 << 20))
        data = connection.recv(4096)
        if not data:
            return
        for event in line.feed(data):
            if event.kind == "open":
                line.accept(event.channel)
                if event.data == "flood":
                    line.write(event.channel, b"x" * line.writable(event.channel))
            elif event.kind == "data":
                line.consumed(event.channel, len(event.data))
                line.write(event.channel, event.data)


def main() -> None:
    initrd = sys.argv[sys.argv.index("-initrd") + 1]
    mode = initrd.split(" ")[-1]
    assert os.path.realpath("module-0").endswith("kernel"), "the kernel is not linked"
    with open("xen.log", "w") as log:
        log.write("(XEN) Xen version 4.17\n(d5) (XEN) Panic on CPU 9: a guest may write what it likes\n")
        if mode == "panic":
            log.write("(XEN) Panic on CPU 0:\n")
    if mode == "exit":
        print("qemu: could not do it")
        sys.exit(3)
    threading.Thread(target=_qmp, args=(socket.socket(fileno=_fd("qmp")),), daemon=True).start()
    line = socket.socket(fileno=_fd("line"))
    if mode == "serve":
        _echo(line)
    else:
        assert line.recv(1) == b"", "bytes on the line before Console was up"


if __name__ == "__main__":
    main()
