"""Reading the machine's mirrors out of /etc/apt, in both of apt's formats."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xoar.host import apt, mirrors
from xoar.host.errors import HostError

DEB822 = """\
Types: deb
# a comment inside a stanza
URIs: http://mirror.example/debian/
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs:
 http://mirror.example/debian-security
Suites: trixie-security
Components: main contrib
"""

ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb cdrom:[Debian 12]/ bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/hashicorp-keyring.gpg] https://other.example bookworm main
deb-src [ trusted=yes ] http://one.example/debian bookworm-updates main contrib
deb http://one.example/security bookworm-security main
deb http://two.example/debian bookworm main
"""


def configure(etc: Path, **files: str) -> Path:
    (etc / "sources.list.d").mkdir()
    for name, text in files.items():
        place = etc / "sources.list" if name == "main" else etc / "sources.list.d" / name.replace("_", ".")
        place.write_text(text)
    return etc


def test_deb822_sources_are_read(tmp_path: Path) -> None:
    found = mirrors.configured(configure(tmp_path, debian_sources=DEB822))
    assert found == mirrors.Mirrors("http://mirror.example/debian", "http://mirror.example/debian-security")


def test_one_line_sources_are_read_without_foreign_archives_and_cdroms(tmp_path: Path) -> None:
    found = mirrors.configured(configure(tmp_path, main=ONE_LINE))
    assert found == mirrors.Mirrors("http://one.example/debian", "http://one.example/security")


def test_a_disabled_stanza_does_not_count(tmp_path: Path) -> None:
    disabled = DEB822.replace("Types: deb\n#", "Enabled: no\nTypes: deb\n#")
    with pytest.raises(HostError, match="no Debian mirror"):
        mirrors.configured(configure(tmp_path, debian_sources=disabled))


def test_without_a_mirror_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"configure one") as caught:
        mirrors.configured(tmp_path)
    assert str(tmp_path) in str(caught.value)


@given(
    text=st.text(alphabet="deb-src[]=: \t\n#main/bookworm", max_size=200),
    suffix=st.sampled_from(["list", "sources"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_no_text_makes_the_reader_fail_otherwise(tmp_path: Path, text: str, suffix: str) -> None:
    (tmp_path / "sources.list.d").mkdir(exist_ok=True)
    (tmp_path / "sources.list.d" / f"x.{suffix}").write_text(text)
    try:
        assert mirrors.configured(tmp_path).archive
    except HostError:
        pass
    finally:
        (tmp_path / "sources.list.d" / f"x.{suffix}").unlink()


def test_the_private_list_has_binaries_of_one_release_and_sources_of_all() -> None:
    text = apt.sources_list(mirrors.Mirrors("A", "S"))
    lines = [re.sub(r" \[signed-by=[^]]*debian-archive[^]]*\]", "", line) for line in text.splitlines()]
    assert lines[:3] == ["deb A bookworm main", "deb-src A bookworm main", "deb-src A trixie main"]
    assert "deb-src S trixie-security main" in lines
    assert "security" not in apt.sources_list(mirrors.Mirrors("A", None))
