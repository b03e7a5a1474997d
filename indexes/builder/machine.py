"""Memory of this machine and of this process, which long stages compare with what they need, and report."""

import os
import resource
import sys
from pathlib import Path

_CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Files with the memory limit of a container, in cgroup versions 2 and 1. Version 2 says `max` if there is none."""


def machine_memory() -> int:
    """Return the bytes of memory that this process may use: those of the machine, or of its container if fewer."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CONTAINER_LIMITS:
        try:
            sizes.append(int(path.read_text()))
        except (OSError, ValueError):
            continue
    return min(sizes)


def peak_memory() -> int:
    """Return the most memory that this process has had, in bytes, including mapped files as far as it read them."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def readable_size(size: float) -> str:
    """Return a size in bytes as a text with a binary unit, such as `1.5 GiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"
