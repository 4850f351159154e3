"""The tiny guest's kernel: its configuration is taken whole or refused, its sources are pinned."""

from hypothesis import given
from hypothesis import strategies as st

from xoar.host import cache, sources
from xoar.host.build import linux
from xoar.host.config import BUILTIN

names = st.text(alphabet="ABCXYZ019_", min_size=1, max_size=12).map("CONFIG_".__add__)
settings_of = st.dictionaries(names, st.sampled_from(["y", "n", "0x200000", '"-xoar"']), max_size=12)


def lines(settings: dict[str, str]) -> list[str]:
    return [f"# {k} is not set" if v == "n" else f"{k}={v}" for k, v in settings.items()]


@given(settings_of, settings_of)
def test_exactly_the_settings_that_kconfig_dropped_or_changed_are_named(
    wanted: dict[str, str], made: dict[str, str]
) -> None:
    text = "# why\n\n" + "\n".join(lines(wanted))
    found = linux.missing(text, "# Linux/x86\n" + "\n".join(lines(made)))
    assert found == lines({name: value for name, value in wanted.items() if made.get(name) != value})


def test_an_option_that_kconfig_does_not_know_is_named_even_when_it_is_off() -> None:
    assert linux.missing("# CONFIG_TYPO is not set\n", "CONFIG_64BIT=y\n") == ["# CONFIG_TYPO is not set"]


def test_the_kernel_lies_low_enough_for_a_guest_of_32_mib() -> None:
    wanted = (linux.GUESTS / "tiny.config").read_text()
    assert linux.missing("CONFIG_PHYSICAL_START=0x200000\n# CONFIG_RELOCATABLE is not set\n", wanted) == []


def test_every_pinned_version_names_its_description_and_archives() -> None:
    for version in sources.load(linux.GUESTS / "source.toml").versions:
        assert sorted(name.split(".", 1)[1].split(".")[-1] for name in version.files) == ["dsc", "xz", "xz"]
        assert all(len(digest) == 64 for digest in version.files.values())


def test_a_configuration_may_ask_for_it() -> None:
    assert "tiny" in BUILTIN
    assert (cache.CHECKOUT / "guests/tiny.config").is_file()
