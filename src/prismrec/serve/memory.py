"""Memory that was freed, and how the C library keeps it: a server that changes bundles for weeks shall not grow by it.

Where another library than glibc allocates, nothing is done to it.
"""

import contextlib
import ctypes
import gc

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # of mallopt(3)
_LARGE = 2**17


def keep_little_freed_memory() -> None:
    """Let large blocks go back to the system when they are freed, and all threads share two of glibc's arenas.

    To be called before there are threads. By default the first large block that is freed lets the next ones as large
    be cut from an arena, where those of a bundle that stay keep what others have freed: a server grew by 10 MiB an
    hour. And there are eight arenas for each core, each with such remains, which has cost up to hundreds of MiB.
    """
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGE)  # where it begins; to set it ends its growth
        mallopt(_ARENA_MAX, 2)


def give_back() -> None:
    """Give what is no longer used back to the system.

    Errors of a database that was away hold the bundle they met, in cycles that are seldom looked for; and arenas give
    back only what is free at their end, unless they are asked.
    """
    gc.collect()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
