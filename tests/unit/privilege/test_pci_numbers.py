import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.privilege.pci import bdf_number, emulated_bdf


@given(st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7))
def test_an_address_and_its_number_say_the_same(segment, bus, device, function):
    number = segment << 16 | bus << 8 | device << 3 | function
    short = f"{bus:02x}:{device:02x}.{function}"
    assert bdf_number(f"{segment:04x}:{short}") == number
    assert bdf_number(short) == number & 0xFFFF


@pytest.mark.parametrize("text", ["", "3:00.0", "03:20.0", "03:00.8", "03:00", "0:03:00.0", "03:00.0 "])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="is no PCI address"):
        bdf_number(text)


@given(st.text())
def test_any_text_is_an_address_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        assert 0 <= bdf_number(text) < 1 << 32


def test_emulated_devices_are_alone_on_buses_from_one_up():
    assert [emulated_bdf(index) for index in (0, 1)] == [bdf_number("01:00.0"), bdf_number("02:00.0")]
