"""binascii as far as the portable packages use it; MicroPython's own would bring all of zlib along."""

from nano import crc32


def hexlify(data: bytes) -> bytes:
    return bytes(data).hex().encode()


def unhexlify(text: str) -> bytes:
    return bytes.fromhex(text)


__all__ = ["crc32", "hexlify", "unhexlify"]
