"""How the C library deals with the memory that tensors free."""

from __future__ import annotations

import ctypes

# Numbers of glibc's options (mallopt(3)).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Larger blocks than these are rare [bytes]; glibc takes numbers below 2^31.
_LARGEST = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Let the C library keep what tensors free, for the next ones.

    By default it returns large blocks to the system and asks for them again in every step, which
    clears each page: a third of the time of a training on CPUs. Libraries other than glibc are left
    alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
        mallopt(option, _LARGEST)
