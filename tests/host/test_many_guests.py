"""Many guests: one after another without a trace, and many at once."""

from __future__ import annotations

from harness import HostUnderTest

IN_A_ROW = 20
AT_ONCE = 30


def test_guests_created_and_destroyed_in_a_row_leave_xen_all_its_memory(host: HostUnderTest) -> None:
    # what the shards allocate once for the most guests that they ever had at a time
    for name in ("a", "b", "c"):
        host.create(name)
    host.destroy("a", "b", "c")
    free = host.free_kib()
    for number in range(IN_A_ROW):
        host.create(f"g{number}")
        host.destroy(f"g{number}")
    assert host.free_kib() == free


def test_many_guests_run_at_once_and_each_answers(host: HostUnderTest) -> None:
    names = [f"g{number}" for number in range(AT_ONCE)]
    for name in names:
        host.create(name, "tiny", "32MiB")
    for name in names:
        host.wait_for(name, rb"login: ", timeout=300)
    for name in names:
        assert f"I am {name}" in host.run(name, "echo I am $(hostname)")
