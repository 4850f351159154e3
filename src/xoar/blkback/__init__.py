"""BlkBack's agent: volumes on an LVM thin pool, for a Linux driver domain that owns one disk controller.

docs/devices.md is the contract with the other domains. CPython 3.11 on Linux only.
"""
