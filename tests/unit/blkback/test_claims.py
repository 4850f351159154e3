"""Who may use a volume: one writer, or readers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.blkback.claims import Claims, Vbd
from xoar.blkback.errors import AttachError

A, B, C = Vbd(32, "51712"), Vbd(33, "51712"), Vbd(34, "51728")


def test_readers_share_a_volume():
    claims = Claims()
    for vbd in (A, B, C):
        claims.add(vbd, "v", False)
    assert claims.users("v") == [32, 33, 34]


@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True)])
def test_a_writer_is_alone(first, second):
    claims = Claims()
    claims.add(A, "v", first)
    with pytest.raises(AttachError, match=r"in use for .* by domain 32"):
        claims.add(B, "v", second)
    assert claims.users("v") == [32]
    claims.add(B, "other", second)


def test_a_volume_is_free_when_its_user_has_gone():
    claims = Claims()
    claims.add(A, "v", True)
    claims.remove(A)
    claims.remove(A)
    assert claims.users("v") == [] and not claims.written("v")
    claims.add(B, "v", True)


@given(st.lists(st.tuples(st.integers(32, 35), st.sampled_from("uv"), st.booleans(), st.booleans())))
def test_whatever_comes_and_goes_a_writer_is_alone(steps):
    claims, held = Claims(), {}
    for guest, volume, writable, goes in steps:
        vbd = Vbd(guest, volume)
        if goes:
            claims.remove(vbd)
            held.pop(vbd, None)
        elif vbd not in claims:
            try:
                claims.add(vbd, volume, writable)
                held[vbd] = writable
            except AttachError:
                pass
        for name in "uv":
            modes = [mode for vbd, mode in held.items() if vbd.device == name]
            assert len(modes) <= 1 or not any(modes)
            assert claims.users(name) == sorted(vbd.guest for vbd in held if vbd.device == name)
