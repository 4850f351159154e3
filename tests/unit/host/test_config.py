"""xoar.toml: what is read, and what is said, with file and line, of everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoar.host import config
from xoar.host.cache import CHECKOUT
from xoar.host.config import ConfigError
from xoar.host.errors import HostError

FILE = Path("some/xoar.toml")
IMAGE = '[images.debian]\nbuiltin = "debian"\n'
GUEST = f'{IMAGE}[guests.web]\nimage = "debian"\n'


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, FILE)
    return str(caught.value)


def test_the_default_file_declares_the_default_guest() -> None:
    found = config.load(CHECKOUT / "xoar.toml")
    assert found.host == config.Host()
    assert list(found.guests) == ["debian"]
    assert found.kernel_arguments(found.guests["debian"]) == "console=hvc0 hostname=debian"


def test_what_the_default_file_shows_as_defaults_are_the_defaults() -> None:
    """Taking the comment signs off the keys of the host and of the guest changes nothing."""
    text = (CHECKOUT / "xoar.toml").read_text()
    lines = [line.removeprefix("# ") if " = " in line else line for line in text.splitlines()]
    kept = [line for line in lines if not line.startswith(("xen_source", "kernel", "initramfs"))]
    shown = config.parse("\n".join(kept), CHECKOUT / "xoar.toml")
    assert shown.host == config.Host()
    plain = config.load(CHECKOUT / "xoar.toml").guests["debian"]
    assert shown.guests["debian"] == plain


def test_everything_can_be_said() -> None:
    found = config.parse(
        """
        [host]
        name = "lab"
        memory = "8GiB"
        cpus = 4
        xen_source = "../xen"
        [images.mine]
        kernel = "vmlinuz"
        initramfs = "/boot/initrd"
        command_line = "console=hvc0 quiet"
        [guests.web]
        image = "mine"
        memory = "256MiB"
        vcpus = 2
        command_line = "single"
        on_reboot = "destroy"
        on_crash = "restart"
        autostart = false
        login = "admin"
        group = "red"
        """,
        FILE,
    )
    assert found.host == config.Host("lab", 8192, 4, FILE.absolute().parent / "../xen")
    image = found.images["mine"]
    assert (image.kernel, image.initramfs) == (FILE.absolute().parent / "vmlinuz", Path("/boot/initrd"))
    guest = found.guests["web"]
    assert guest == config.Guest(
        "web", "mine", 262144, 2, "single", "destroy", "restart", False, "admin", "red"
    )
    assert found.kernel_arguments(guest) == "console=hvc0 quiet single"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[host]\nname = 3\n", 2, 'write it like this: name = "xoar"'),
        ('[host]\nname = "My Host"\n', 2, "letters a-z"),
        ('[host]\nmemory = "4 GB"\n', 2, '"4 GB" is no size'),
        ("[host]\nmemory = 4096\n", 2, "wrong type"),
        ('[host]\nmemory = "64MiB"\n', 2, "512MiB to 1TiB"),
        ("[host]\ncpus = 0\n", 2, "1 to 64"),
        ("[host]\ncpus = true\n", 2, "wrong type"),
        ('[host]\n\nxen-source = "x"\n', 3, 'Did you mean "xen_source"?'),
        ("[hosts]\n", 1, 'Did you mean "host"?'),
        ("host = 3\n", 1, "as a table: [host]"),
        ("[images.a]\n", 1, "needs either builtin"),
        ('[images.a]\nbuiltin = "debain"\n', 2, 'Did you mean "debian"?'),
        ('[images.a]\nbuiltin = "debian"\nkernel = "k"\n', 1, "needs either builtin"),
        ('[images.a]\nbuiltin = "debian"\ninitramfs = "k"\n', 3, "has its own initramfs"),
        ('[images.a]\nkernel = ""\n', 2, "is no path"),
        ('[images.A]\nkernel = "k"\n', 1, "is no name for an image"),
        (f"[images.{'a' * 33}]\n", 1, "is no name for an image"),
        ('[images.a]\nkernel = "k"\ncommand_line = "a\\nb"\n', 3, "printable ASCII"),
        ("[guests.web]\n", 1, "needs an image"),
        (IMAGE + '[guests.web]\nimage = "debain"\n', 4, 'Did you mean "debian"?'),
        (IMAGE + '[guests.Web]\nimage = "debian"\n', 3, "is no name"),
        (GUEST + 'memory = "4MiB"\n', 5, "8MiB to 1TiB"),
        (GUEST + 'memory = "9001KiB"\n', 5, "whole pages"),
        (GUEST + "vcpus = 129\n", 5, "1 to 128"),
        (GUEST + 'on_crash = "ignore"\n', 5, "restart, destroy, keep"),
        (GUEST + 'group = "Red"\n', 5, '"Red" is no name for a group: use up to 32 of a-z'),
        (GUEST + f'group = "{"r" * 33}"\n', 5, "is no name for a group"),
        (GUEST + "group = 3\n", 5, 'write it like this: group = "red"'),
        (GUEST + "autostart = 1\n", 5, "write it like this: autostart = true"),
        (GUEST + "\n\nmemroy = 1\n", 7, '"memroy" is not a key in [guests.web]. Did you mean "memory"?'),
        (GUEST + "zzz = 1\n", 5, "Known: image, memory, vcpus"),
        ("[host]\nname = \n", 2, "not TOML"),
        ('[host]\nname = "a"\nname = "b"\n', 3, "not TOML"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_reason(text: str, line: int, reason: str) -> None:
    message = refusal(text)
    assert message.startswith(f"some/xoar.toml:{line}: ")
    assert reason in message


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"can't read .*gone\.toml: No such file"):
        config.load(tmp_path / "gone.toml")
    (tmp_path / "latin.toml").write_bytes(b"[host]\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.toml:2: not UTF-8"):
        config.load(tmp_path / "latin.toml")


def test_files_that_are_named_must_be_there(tmp_path: Path) -> None:
    file = tmp_path / "xoar.toml"
    file.write_text('[images.a]\nkernel = "k"\n[images.b]\nkernel = "k"\ninitramfs = "i"\n')
    (tmp_path / "k").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"toml:3: initramfs of image b: there is no file .*/i$"):
        config.check_files(config.load(file))
    (tmp_path / "i").write_bytes(b"")
    config.check_files(config.load(file))
    with pytest.raises(HostError, match="no Xen source tree"):
        config.check_files(config.load(file).for_host(None, tmp_path))


def test_a_command_line_too_long_for_a_request_is_told() -> None:
    image = f"{IMAGE}command_line = '{'x' * 1000}'\n"
    text = image + f"[guests.web]\nimage = 'debian'\ncommand_line = '{'y' * 100}'\n"
    found = config.parse(text, FILE)
    with pytest.raises(HostError, match=r"the kernel command line of guest web: .*at most 1024"):
        found.kernel_arguments(found.guests["web"])


@given(st.integers(1, 10**9))
def test_a_size_is_read_as_it_is_written(kib: int) -> None:
    assert config.parse_size(config.format_size(kib)) == kib


@given(st.integers(1, 10**6), st.sampled_from([("KiB", 1), ("MiB", 2**10), ("GiB", 2**20), ("TiB", 2**30)]))
def test_units_are_powers_of_1024(number: int, unit: tuple[str, int]) -> None:
    assert config.parse_size(f"{number}{unit[0]}") == number * unit[1]


@given(st.text(st.sampled_from("0123456789 .-+_kKmMgGiIbB٣")))
def test_no_text_but_a_whole_number_with_a_unit_is_a_size(text: str) -> None:
    try:
        kib = config.parse_size(text)
    except ValueError as error:
        assert text in str(error)
    else:
        digits = text[:-3]
        assert digits.isascii() and digits.isdigit() and not digits.startswith("0")
        assert kib == int(digits) * {"KiB": 1, "MiB": 2**10, "GiB": 2**20}[text[-3:]]


_VALUES = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.text("abc\"'\\", max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=2),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.sampled_from(["host", "images", "guests", "other"]),
        st.dictionaries(st.sampled_from(["name", "memory", "cpus", "web", "image", "builtin"]), _VALUES),
    )
)
def test_any_toml_is_accepted_or_refused_with_its_line(document: dict[str, dict[str, object]]) -> None:
    text = "".join(
        f"[{table}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())
        for table, values in document.items()
    )
    try:
        config.parse(text, FILE)
    except ConfigError as error:
        assert 1 <= error.line <= text.count("\n")


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


@given(st.text(max_size=200))
def test_any_text_is_accepted_or_refused_as_a_configuration(text: str) -> None:
    try:
        config.parse(text, FILE)
    except ConfigError as error:
        assert error.line >= 1


@pytest.mark.parametrize("path", sorted((CHECKOUT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_examples_can_be_read(path: Path) -> None:
    assert config.load(path).guests
