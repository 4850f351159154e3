"""Which paths are well-formed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.xenstore import paths
from xoar.xenstore.errors import Refused

NAMES = st.lists(st.from_regex(rb"\A[A-Za-z0-9_@-]{1,12}\Z"), max_size=6)


@given(NAMES)
def test_parent_leaf_and_child_fit_together(names: list[bytes]) -> None:
    path = b"/" + b"/".join(names)
    paths.check(path)
    if names:
        assert paths.child(paths.parent(path), paths.leaf(path)) == path
    else:
        assert paths.parent(path) == path


@pytest.mark.parametrize("path", [b"", b"a", b"//", b"/a/", b"/a//b", b"/a b", b"/a\xff", b"/.", b"@x"])
def test_malformed_paths_are_refused(path: bytes) -> None:
    with pytest.raises(Refused, match="EINVAL"):
        paths.check(path)


def test_the_length_of_a_path_is_limited_below_a_domains_home() -> None:
    home = paths.home(12345)
    paths.check(b"/" + b"x" * (paths.RELATIVE_MAX - 1))
    paths.check(home + b"/" + b"x" * paths.RELATIVE_MAX)
    for path in (b"/" + b"x" * paths.RELATIVE_MAX, home + b"/" + b"x" * (paths.RELATIVE_MAX + 1)):
        with pytest.raises(Refused):
            paths.check(path)


def test_relative_paths_are_below_the_domains_home() -> None:
    base = paths.home(5)
    assert paths.absolute(b"data/x", base) == b"/local/domain/5/data/x"
    assert paths.absolute(b"/data", base) == b"/data"
    assert paths.absolute(b"@releaseDomain", base) == b"@releaseDomain"
    with pytest.raises(Refused):
        paths.check(paths.absolute(b"", base))
