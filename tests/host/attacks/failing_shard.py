"""A shard that fails while it starts."""


def main():
    raise RuntimeError("no serial port today")
