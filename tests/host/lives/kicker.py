"""In Toolstack's place: has the probe rolled back, slowly at first, then as often as it can."""

from xoar.xen import boot, events

_SLOW, _ALL = 60, 1060
_PAUSE = 400 * 1000000
_START = 3000 * 1000000
_PATIENCE = 5000 * 1000000


def _asked(port):
    """Has it rolled back; False if that does not come to pass."""
    events.notify(port)
    deadline = events.now() + _PATIENCE
    while events.now() < deadline:
        if port in events.wait(deadline):
            return True
    return False


def main():
    (kick,) = [kick for kick in boot.kicks() if kick.target == "probe"]
    port = kick.port
    boot.ready()
    while port not in events.wait():
        pass  # the snapshot was taken
    events.wait(events.now() + _START)
    for count in range(_ALL):
        if count < _SLOW:
            events.wait(events.now() + _PAUSE)
        if not _asked(port):
            print(f"kicker: no answer for rollback {count + 1}")
            break
    print(f"kicker: done, to be asked after {kick.requests}, {kick.patience_ms} ms")
    for _ in range(500):
        events.notify(port)
    print("kicker: storm over")
    while True:
        events.wait()
