"""A nano domain that is built and booted, and then ends: what `xoar bench microreboot` compares with."""


def main() -> None:
    """Nothing to do: the domain powers off."""
