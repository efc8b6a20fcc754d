"""What benchmarks say while they run, and write down: lines, the first of them of the day and the machine."""

import datetime as dt
import os
import platform

import torch


def header(name: str, rest: str) -> str:
    """Date and machine of the benchmark `name`; `rest` ends the line."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return (
        f"`{name}`, {dt.date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, PyTorch {torch.__version__} on {device}, {rest}"
    )


def say(line: str) -> str:
    """Print a line and give it back."""
    print(line, flush=True)
    return line
