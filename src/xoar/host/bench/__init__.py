"""Measures a Xoar host against stock Debian Xen with a domain 0 and `xl`, in the same emulator."""
