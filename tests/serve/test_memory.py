"""What a process of `serve` keeps of what was freed."""

import ctypes
import subprocess
import sys

import pytest

BLOCKS = """
import ctypes
from prismrec.serve.memory import keep_little_freed_memory

class Sizes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd 5 6 7 8 9".split()]

keep_little_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.mallinfo2.restype = Sizes
libc.free(libc.malloc(2**24))
before = libc.mallinfo2().hblks
libc.malloc(2**20)
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_a_large_block_is_the_systems_even_after_a_larger_one_was_freed() -> None:
    """By default one of 16 MiB that was freed lets glibc cut the next of 1 MiB from an arena."""
    said = subprocess.run([sys.executable, "-c", BLOCKS], stdout=-1, text=True, check=True).stdout
    assert said == "1\n"
