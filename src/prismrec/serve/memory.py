"""Memory that was freed, and how the C library keeps it: a server that changes bundles for weeks shall not grow by it.

Where another library than glibc allocates, nothing is done to it.
"""

import contextlib
import ctypes
import gc

_ARENA_MAX = -8  # of mallopt(3)


def share_arenas() -> None:
    """Let all threads have two of glibc's arenas between them; to be called before there are threads.

    By default there are eight for each core. Each keeps what was freed beside the little in it that stays, such as a
    part of a bundle that one thread opened; so every change of the bundle has cost some MiB, up to hundreds.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 2)


def give_back() -> None:
    """Give what is no longer used back to the system.

    Errors of a database that was away hold the bundle they met, in cycles that are seldom looked for; and arenas give
    back only what is free at their end, unless they are asked.
    """
    gc.collect()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
