"""A command of `prismrec` in a process forked from one that has imported everything; see `commands.py`.

Given as a global, a tuple: the arguments; the file of what is said; a shared number, counted up before each change of a
file; the number at which the process kills itself, or 0, and how the path of a file ends that is put in its place, if
only these changes count; the largest file it may write, in bytes, or 0.
"""

import os
import resource
import signal
import sys
from pathlib import Path

from prismrec.cli import main

CHANGES = {"os.chmod", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}

arguments, said, changes, (die_at, name), largest_file = globals()["given"]


def watch(event: str, details: tuple) -> None:
    if name:
        counts = event == "os.rename" and Path(os.fsdecode(details[1])).match(name)
    else:
        opens = event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR)
        counts = opens or event in CHANGES
    if counts:
        changes.value += 1
        if changes.value == die_at:
            os.kill(os.getpid(), signal.SIGKILL)


output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.dup2(output, 1)
os.dup2(output, 2)
if largest_file:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
sys.addaudithook(watch)
main(arguments)
