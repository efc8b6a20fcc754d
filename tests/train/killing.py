"""A part of programs that end, killed for real, when a file is about to be put in place."""

DIE_AT_RENAME = """\
def watch(event, arguments):
    global left
    if event == "os.rename" and Path(os.fsdecode(arguments[1])).match(name):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
"""
"""An audit hook: SIGKILL when the path that ends in `name` is put in place for the time that brings `left` to 0."""
